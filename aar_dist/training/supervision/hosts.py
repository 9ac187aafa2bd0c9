"""The hosts of a launch: who is meant, who answers, how many ranks each gets.

hostfile -> [Host] -> answering (ssh, all at once) -> spread(ranks) -> [Host] of this attempt
"""

import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from aar_dist.base.ssh import AT_ONCE, ssh
from aar_dist.training.meeting.hostfile import read_hostfile


@dataclass(frozen=True)
class Host:
    """A computer, and the ranks it takes."""

    name: str
    slots: int


@dataclass(frozen=True)
class Silent:
    """A host on which a command could not be run, or failed."""

    why: str
    """The last line that ssh or the command had to say."""


def hosts_of(path: str | Path) -> list[Host]:
    """The hosts of a hostfile. Raises ``ConfigError``."""
    return [Host(name, slots) for name, slots in read_hostfile(path).items()]


def silent(hosts: Iterable[Host], command: Sequence[str], timeout_s: float) -> dict[str, str]:
    """Run a command on all hosts at once: name -> why, of those where it failed or did not end in time."""
    said = on_each(hosts, command, timeout_s)
    return {name: each.why for name, each in said.items() if isinstance(each, Silent)}


def on_each(hosts: Iterable[Host], command: Sequence[str], timeout_s: float) -> dict[str, str | Silent]:
    """Run a command on all hosts at once: name -> its output."""
    hosts = list(hosts)
    with ThreadPoolExecutor(min(AT_ONCE, len(hosts) or 1)) as pool:
        said = pool.map(lambda host: _ssh(host.name, command, timeout_s), hosts)
        return dict(zip((host.name for host in hosts), said, strict=True))


def _ssh(name: str, command: Sequence[str], timeout_s: float) -> str | Silent:
    try:
        done = subprocess.run(
            ssh(name, command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s,
            start_new_session=True,  # the Ctrl-C of a terminal is for the supervisor
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Silent(f"no answer within {timeout_s:g} s")
    except OSError as error:
        return Silent(f"ssh: {error.strerror}")
    if done.returncode == 0:
        return done.stdout
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return Silent(lines[-1][:200] if lines else f"exit code {done.returncode}")


def ranks_for(slots: int, fits: Callable[[int], bool]) -> int:
    """The largest number of ranks, up to this many, among which the batch can be shared; 0 if there is none."""
    return next((ranks for ranks in range(slots, 0, -1) if fits(ranks)), 0)


def spread(hosts: Sequence[Host], ranks: int) -> list[Host]:
    """The hosts with as many slots as ranks; the last ones give way."""
    chosen = []
    for host in hosts:
        taken = min(host.slots, ranks)
        ranks -= taken
        if taken:
            chosen.append(replace(host, slots=taken))
    return chosen


def hostfile(hosts: Iterable[Host]) -> str:
    """The lines that DeepSpeed reads."""
    return "".join(f"{host.name} slots={host.slots}\n" for host in hosts)
