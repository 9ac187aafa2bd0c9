"""Checks of what is outside the machine: W&B, shard sets. A key is never shown."""

import base64
import json
import netrc
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from aar_dist.base.addresses import without_secrets
from aar_dist.base.code import SHORT
from aar_dist.base.errors import AarError, one_line
from aar_dist.training.doctor.finding import Finding, Wanted, ok, problem, warning

PATIENCE_S = 4.0
SERVER = "https://api.wandb.ai"
WHO = {"query": "query { viewer { username } }"}


def services(wanted: Wanted) -> Iterator[Finding]:
    """All of this file."""
    if wanted.first:
        yield wandb()
    for name in wanted.shards:
        yield shard_set(name)


def wandb(server: str | None = None) -> Finding:
    """Whether runs will be seen, asked without the library."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode in ("offline", "disabled", "dryrun"):
        return ok("W&B", f"WANDB_MODE={mode}")
    server = (server or os.environ.get("WANDB_BASE_URL") or SERVER).rstrip("/")
    key = _key(server)
    if not key:
        return ok("W&B", "no key: runs are recorded offline, `aar-dist sync` sends them later")
    try:
        user = _ask(server, key)
    except urllib.error.HTTPError as error:
        return problem(
            "W&B",
            f"{server} refuses the key ({error.code})" if error.code in (401, 403) else f"{server}: {error.code}",
            "wandb login, or set WANDB_API_KEY; training goes on offline",
        )
    except (OSError, ValueError, ssl.SSLError) as error:
        reason = getattr(error, "reason", error)
        said = (
            "does not answer" if isinstance(reason, socket.timeout) else f"cannot be reached ({one_line(error)[:80]})"
        )
        return warning("W&B", f"{server} {said}", "runs are recorded offline, `aar-dist sync` sends them later")
    if not user:
        return problem("W&B", f"{server} does not know the key", "wandb login, or set WANDB_API_KEY")
    return ok("W&B", f"{server} knows the key as {user}")


def _key(server: str) -> str:
    if os.environ.get("WANDB_API_KEY"):
        return os.environ["WANDB_API_KEY"]
    try:
        entry = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(server).hostname or "")
    except (OSError, netrc.NetrcParseError):
        return ""
    return str(entry[2]) if entry else ""


def _ask(server: str, key: str) -> str:
    """The user that a key belongs to; empty for nobody's."""
    said = {
        "Content-Type": "application/json",
        "Authorization": "Basic " + base64.b64encode(f"api:{key}".encode()).decode(),
    }
    request = urllib.request.Request(f"{server}/graphql", json.dumps(WHO).encode(), said)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        viewer = (json.loads(answer.read(100_000)).get("data") or {}).get("viewer") or {}
    return str(viewer.get("username") or "")


def shard_set(name: str) -> Finding:
    """Whether a set can be opened here, and which it is."""
    from aar_dist.shards.format import read_info

    try:
        info = read_info(name)
    except (AarError, OSError) as error:
        return problem("shards", one_line(error)[:200], "give every host the same shard set")
    return ok("shards", f"{without_secrets(name)} is {info['identity'][:SHORT]}")
