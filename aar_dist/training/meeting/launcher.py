"""What this process's own launcher was told: read from the command lines of its ancestors.

deepspeed --hostfile X …        X missing: a warning, and it trains on this machine alone
  └─ launch.py --world_info=…   which host has which ranks
       └─ this rank
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from aar_dist.base.errors import ConfigError
from aar_dist.training.meeting.hostfile import read_hostfile

RUNNERS = ("deepspeed", "deepspeed.pt", "ds", "runner.py", "deepspeed.launcher.runner")
FILTERS = ("--include", "-i", "--exclude", "-e", "--num_nodes", "--num_gpus", "--num_accelerators")


@dataclass(frozen=True)
class Launcher:
    """What is known of the launch. Empty where a rank was not started by DeepSpeed's launcher."""

    flags: tuple[str, ...] = ()
    """Of the ``deepspeed`` that a person typed, if it runs on this machine; without the program's own."""
    folder: Path = Path()
    """Where it was typed."""
    hosts: tuple[str, ...] = ()
    """Host of each rank, as the launcher calls it."""
    here: bool = False
    """True if ``deepspeed`` was typed on this machine: its terminal shows what this rank prints."""

    def host_of(self, rank: int) -> str:
        """For a message: `` (host n2)``, or nothing."""
        return f" (host {self.hosts[rank]})" if rank < len(self.hosts) else ""

    def hostfile(self) -> Path | None:
        """The hostfile that was asked for."""
        found = flag(self.flags, "--hostfile", "-H")
        return None if found is None else self.folder / found

    def filtered(self) -> bool:
        """True if not every slot of the hostfile was asked for."""
        return any(each.split("=")[0] in FILTERS for each in self.flags)


def find_launcher(process: Any = None) -> Launcher:
    """The launcher of this process."""
    hosts: tuple[str, ...] = ()
    try:
        for parent in (process or psutil.Process()).parents():
            command = parent.cmdline()
            world = flag(command, "--world_info")
            if world:
                hosts = hosts_of(world)
            flags = launcher_flags(command)
            if flags is not None:
                return Launcher(flags, Path(parent.cwd()), hosts, here=True)
    except psutil.Error:  # an ancestor that is not ours to look at, or has just ended
        pass
    return Launcher(hosts=hosts)


def launcher_flags(command: Sequence[str]) -> tuple[str, ...] | None:
    """What stands between ``deepspeed`` and the program; None of another command."""
    names = [Path(word).name for word in command[:4]]
    at = next((i for i, name in enumerate(names) if name in RUNNERS), None)
    if at is None or any(not word.startswith("-") for word in names[1:at]) or (at and "python" not in names[0]):
        return None
    rest = command[at + 1 :]
    program = next((i for i, word in enumerate(rest) if word.endswith(".py") or word == "--module"), len(rest))
    return tuple(rest[:program])


def flag(command: Sequence[str], *names: str) -> str | None:
    """The value of a flag, given as ``--flag value`` or ``--flag=value``."""
    for i, word in enumerate(command):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else next(iter(command[i + 1 :]), None)
    return None


def hosts_of(world_info: str) -> tuple[str, ...]:
    """Host of each rank, from the launcher's base64 of ``{host: [slots]}``."""
    try:
        slots = json.loads(base64.urlsafe_b64decode(world_info))
        return tuple(host for host, numbers in slots.items() for _ in numbers)
    except (ValueError, AttributeError, TypeError):
        return ()


def check_hostfile(launcher: Launcher, world_size: int) -> None:
    """Raise ``ConfigError`` if the hostfile that was asked for is not what the launch was made of."""
    path = launcher.hostfile()
    if path is None:
        return
    slots = sum(read_hostfile(path).values())
    if world_size < slots and not launcher.filtered():
        raise ConfigError(
            f"hostfile {path} has {slots} slots, but {world_size} rank(s) were started: it was changed or made after "
            "the launch; launch again"
        )
