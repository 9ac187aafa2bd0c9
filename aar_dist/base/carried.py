"""The environment of the shell where a launch is typed, for ranks on other hosts.

    aar-dist env  ->  .deepspeed_env         read by `deepspeed --hostfile`: put on command lines and into its log
                      .aar_dist_env (0600)   read by every rank before anything else: keys and passwords too

ssh hands on nothing of it, and DeepSpeed only what begins with PYTHON and, with GPUs, NCCL.
"""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from aar_dist.base import storage
from aar_dist.base.cli import Parser
from aar_dist.base.errors import ConfigError, one_line, user_entry

POINTER = "AAR_DIST_ENVIRONMENT"
"""Names the private file to the ranks."""
PRIVATE, LAUNCHERS = ".aar_dist_env", ".deepspeed_env"
TRAVELS = (
    "AAR_DIST_", "AWS_", "AZURE_", "CUDA_", "DS_", "GLOO_", "GOOGLE_", "HF_", "MKL_", "NCCL_", "OMP_", "TORCH",
    "WANDB_",
)  # fmt: skip
"""Beginnings of the names that travel."""
PROXIES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
COMPILERS = ("CC", "CXX")
STAYS = (POINTER, "AAR_DIST_LAST_WORD", "AAR_DIST_RUN", "CUDA_VISIBLE_DEVICES", "DS_ENV_FILE", "WANDB_SERVICE")
"""What belongs to one process or one host."""
EARLY = ("DS_ACCELERATOR", "LD_LIBRARY_PATH")
"""Read before a rank reads anything: DeepSpeed's launcher must export them itself."""
UNQUOTED = re.compile(r"[\w@+=:,./ -]*")
"""What DeepSpeed, ssh and pdsh (which replaces %h and the like) leave as it is."""


def travelling(environ: Mapping[str, str], names: Sequence[str] = ()) -> dict[str, str]:
    """The variables that ranks on other hosts must see, and those that are named. Raises ``ConfigError`` for a name
    that is not set."""
    if missing := [name for name in names if name not in environ]:
        raise ConfigError(f"{missing[0]} is not set in this shell: export it first, or leave the name out")
    chosen = {
        name: value
        for name, value in environ.items()
        if name in names or name.startswith(TRAVELS) or name.upper() in (*PROXIES, *COMPILERS)
    }
    return {name: value for name, value in sorted(chosen.items()) if name not in STAYS}


def exports(variables: Mapping[str, str], private: Path, also: Mapping[str, str] | None = None) -> dict[str, str]:
    """Keep variables in a file that only its owner can read; returns what DeepSpeed's launcher must export for the
    ranks to find them, and what ``also`` is to be exported. Raises ``ConfigError`` where it could not."""
    found = {POINTER: str(private.resolve())} | {name: variables[name] for name in EARLY if name in variables}
    found |= also or {}
    for name, value in found.items():
        if not UNQUOTED.fullmatch(value):
            raise ConfigError(
                f"{name}={value!r} cannot be handed on by ssh and pdsh: only letters, digits and _@+=:,./- "
            )
    write_private(private, json.dumps({"written": time.strftime("%Y-%m-%d %H:%M"), "variables": dict(variables)}))
    return found


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, at no moment anybody else. Raises ``StorageError``."""
    staging = storage.staging_name(path)
    with storage.one_line_errors(path, staging):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        storage.replace(staging, path)


def of_launcher(text: str) -> dict[str, str]:
    """The variables of a .deepspeed_env, without the blank lines on which the launcher breaks."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def written_by_hand(file: Path, private: Path) -> dict[str, str]:
    """What the user's own .deepspeed_env says, beside what we wrote into it. It wins."""
    lines = of_launcher(file.read_text()) if file.exists() else {}
    before = kept(private)
    return {name: value for name, value in lines.items() if name != POINTER and before.get(name) != value}


def kept(private: Path) -> dict[str, str]:
    """The variables in a file of :func:`exports`; none if it is not there or not to be understood."""
    try:
        return _read(private)[0]
    except (OSError, ValueError):
        return {}


def _read(private: Path) -> tuple[dict[str, str], str]:
    """The variables of a file of :func:`exports`, and when it was written. Raises ``OSError``, ``ValueError``."""
    said = json.loads(private.read_text())
    variables = said.get("variables") if isinstance(said, dict) else None
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise ValueError("it holds no variables")
    return variables, str(said.get("written"))


def load() -> None:
    """Take over what was kept for this rank, if anything was. Raises ``ConfigError`` if it cannot be read here."""
    name = os.environ.get(POINTER)
    if not name:
        return
    try:
        variables, written = _read(Path(name))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{name}, the environment of this launch, cannot be read on {os.uname().nodename} ({one_line(error)}); "
            "write it with `aar-dist env`, in a folder that all hosts share"
        ) from None
    os.environ.update(variables)
    if os.environ.get("RANK", "0") == "0":
        print(f"environment as of {written} ({name}): {', '.join(variables)}", flush=True)


@user_entry
def main(argv: Sequence[str]) -> None:
    """``aar-dist env``."""
    options = Parser(
        "Keep what this shell's environment says for the hosts of `deepspeed --hostfile` (docs/clusters.md).",
        prog="aar-dist env",
    )
    options.add_argument(
        "names", nargs="*", metavar="NAME", help=f"beside {'…, '.join(TRAVELS)}…, proxies and compilers"
    )
    file, private = Path(LAUNCHERS), Path(PRIVATE)
    variables = travelling(os.environ, options.parse_args(argv).names)
    own = written_by_hand(file, private)
    variables = {name: value for name, value in variables.items() if name not in own}
    lines = own | exports(variables, private)
    write_private(file, "".join(f"{name}={value}\n" for name, value in lines.items()))
    print(
        f"{private} (for your eyes only) and {file} hold for every launch with --hostfile from this folder:\n"
        f"  {', '.join(variables) or 'nothing: no such variable is set'}\n"
        "Run this again when one of them has changed."
    )
