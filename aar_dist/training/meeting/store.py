"""The place where the ranks meet: a store of rank 0 at MASTER_ADDR:MASTER_PORT, over which all else is arranged.

rank 0 opens it, the others come -> TCPStore -> roll call, alarm, process group
"""

import os
import time
from datetime import timedelta

from torch.distributed import DistError, DistNetworkError, Store, TCPStore  # type: ignore[attr-defined]

from aar_dist.base.errors import ConfigError, PassingError, one_line
from aar_dist.training.environment import muted
from aar_dist.training.ranks import Ranks

PATIENCE = "AAR_DIST_MEETING_S"
ONE_HOST_S, MANY_HOSTS_S = 120.0, 300.0
ATTEMPT_S = 3.0
"""Longest time in which a rank that waits for rank 0 is deaf to Ctrl-C and SIGTERM."""
LOOK_EVERY_S = 0.25
FOR_EVER = timedelta(days=30)
"""Of what has no deadline of its own: the alarm ends a wait that is in vain."""


def patience_s(ranks: Ranks) -> float:
    """How long to wait for ranks that do not come [s]: hosts start at different times, the ranks of one at once."""
    told = os.environ.get(PATIENCE)
    if told is None:
        return ONE_HOST_S if ranks.local_world_size == ranks.world_size else MANY_HOSTS_S
    try:
        seconds = float(told)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ConfigError(f"{PATIENCE} must be a number of seconds, got {told!r}")
    return seconds


def meeting_point() -> tuple[str, int]:
    """Address and port that the launcher gave. Raises ``ConfigError`` where it gave none."""
    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not address or not port.isdigit():
        raise ConfigError(
            f"{os.environ.get('WORLD_SIZE')} ranks need MASTER_ADDR and MASTER_PORT, got {address!r} and {port!r}; "
            "start them with deepspeed, or set both"
        )
    return address, int(port)


def open_store(ranks: Ranks) -> TCPStore:
    """A connection to the meeting's store, which rank 0 holds. Raises ``PassingError`` if it cannot be had."""
    address, port = meeting_point()
    patience = patience_s(ranks)
    deadline = time.monotonic() + patience
    while True:
        left = deadline - time.monotonic()
        attempt = timedelta(seconds=max(0.1, left if ranks.main else min(left, ATTEMPT_S)))
        try:
            with muted():  # of every attempt it would print a page
                store = TCPStore(address, port, is_master=ranks.main, timeout=attempt, wait_for_workers=False)
        except DistError as error:
            if ranks.main or time.monotonic() > deadline:
                raise PassingError(_unreachable(ranks, address, port, patience, error)) from None
        else:
            store.set_timeout(FOR_EVER)
            return store


def _unreachable(ranks: Ranks, address: str, port: int, waited_s: float, error: Exception) -> str:
    if not ranks.main:
        return (
            f"rank 0 did not answer at {address}:{port} within {waited_s:g} s: its host did not start, has ended, or "
            f"a firewall closes the port ({PATIENCE} waits longer)"
        )
    said = one_line(error)
    if "EADDRINUSE" in said or "address already in use" in said:
        return f"port {port} is in use on this machine; give the launcher another one: deepspeed --master_port N"
    return (
        f"port {port} cannot be used at {address} ({said[:80]}); MASTER_ADDR must be an address of the first host, "
        "and --master_port N free there"
    )


def wait_for(store: Store, key: str) -> str:
    """What another rank sets under this key, sooner or later. Raises ``PassingError`` if rank 0 is gone."""
    pause_s = 0.005
    try:
        while not store.check([key]):
            time.sleep(pause_s)  # in Python, so that Ctrl-C and SIGTERM are heard
            pause_s = min(1.5 * pause_s, LOOK_EVERY_S)
        said: bytes = store.get(key)
    except DistNetworkError:
        raise PassingError("rank 0 is gone; its own message says why") from None
    return said.decode()
