"""What may befall a run on two hosts. Each fault waits for its moment, strikes, and mends what a person would mend."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
from hosts import Hosts

from aar_dist.base.storage import STAGING_MARK
from aar_dist.training.metrics import last_step
from aar_dist.training.supervision import leftovers

HELPER = "deepspeed_shm_comm"


@dataclass
class Victim:
    """A supervised run, and the hosts it is on."""

    hosts: Hosts
    run: Path
    """Its directory, as this process sees it."""
    mark: str
    """The same, as the run itself calls it."""
    extensions: Path
    """Where DeepSpeed's helper is compiled."""
    random: Random

    @property
    def step(self) -> int:
        return last_step(self.run / "metrics.jsonl", since=0.0) or 0

    def ranks(self) -> dict[int, int]:
        return {rank: pid for host in self.hosts if host.up for rank, pid in host.ranks().items()}

    def one_rank(self) -> int:
        """Process id of one of them."""
        self.until(lambda: len(self.ranks()) == len(self.hosts), "all ranks")
        return self.random.choice(sorted(self.ranks().items()))[1]

    def runner(self) -> int:
        """Process id of the ``deepspeed`` command."""
        for process in leftovers.marked(self.mark):
            if any(Path(word).name == "deepspeed" for word in process.cmdline()[:2]):
                return process.pid
        raise AssertionError("no launch runs")

    def until(self, holds: Callable[[], object], what: str, seconds: float = 240.0) -> None:
        """Look closely: some moments are short."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
            time.sleep(0.001)

    def compiling(self) -> bool:
        """True while a compiler of the run is at work."""
        with contextlib.suppress(psutil.Error):
            return any(process.name() in ("ninja", "cc1plus") for process in leftovers.marked(self.mark))
        return True

    def saving(self) -> bool:
        """True while a checkpoint is being written."""
        return _any(self.run / "checkpoints", lambda name: STAGING_MARK in name)


def _any(folder: Path, fits: Callable[[str], bool]) -> bool:
    with contextlib.suppress(OSError):
        return any(fits(name) for name in os.listdir(folder))
    return False


def _kill(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def rank_killed(on: Victim) -> None:
    _kill([on.one_rank()])


def launcher_killed(on: Victim) -> None:
    """DeepSpeed's launcher on one of the hosts: its ranks are orphans."""
    on.one_rank()
    _kill(on.random.choice(on.hosts).launchers())


def runner_killed(on: Victim) -> None:
    """The ``deepspeed`` command itself; the ranks hear nothing of it."""
    _kill([on.runner()])


def runner_terminated(on: Victim) -> None:
    _kill([on.runner()], signal.SIGTERM)


def rank_terminated(on: Victim) -> None:
    """As a scheduler does."""
    _kill([on.one_rank()], on.random.choice([signal.SIGTERM, signal.SIGUSR1]))


def host_killed(on: Victim) -> None:
    """Its plug is pulled; it comes back after a moment."""
    host = on.random.choice(on.hosts)
    host.kill()
    time.sleep(on.random.uniform(0, 5))
    host.boot()


def link_cut(on: Victim) -> bool:
    """For longer than anybody waits, or for a moment."""
    host = on.random.choice(on.hosts)
    short = on.random.random() < 0.3
    host.cut()
    time.sleep(1 if short else 20)
    host.mend()
    return not short


def killed_in_a_save(on: Victim) -> None:
    victim = on.one_rank()
    on.until(on.saving, "a save")
    time.sleep(on.random.uniform(0, 0.01))
    _kill([victim])


def killed_between_name_and_marker(on: Victim) -> None:
    """Rank 0, when a checkpoint has its name but perhaps no marker yet."""
    on.one_rank()
    victim, folder = on.ranks()[0], on.run / "checkpoints"
    before = set(os.listdir(folder))
    on.until(lambda: _any(folder, lambda name: name not in before and STAGING_MARK not in name), "a checkpoint")
    _kill([victim])


def disk_full_in_a_save(on: Victim) -> None:
    """Of the run's own disk; somebody makes room after a moment."""
    filler = on.run.parent / "filler"
    on.until(on.saving, "a save")
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    time.sleep(on.random.uniform(1, 4))
    filler.unlink()


def killed_in_an_op_build(on: Victim) -> None:
    """It leaves a lock that nobody would ever remove."""
    folder, kept = on.extensions / HELPER, on.extensions / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.move(folder, kept)
    _kill([on.one_rank()])
    on.until((folder / "lock").exists, "the build")
    time.sleep(on.random.uniform(0, 2))
    _kill(on.ranks().values())
    assert (folder / "lock").exists(), "the killed build left no lock"
    on.until(lambda: not on.compiling(), "the end of the build's processes")
    for file in kept.iterdir():  # so that the next build takes no minute
        shutil.copy2(file, folder)


# False from one that the run may survive without another attempt.
FAULTS: dict[str, Callable[[Victim], bool | None]] = {
    "SIGKILL of a rank": rank_killed,
    "SIGKILL of a launcher": launcher_killed,
    "SIGKILL of deepspeed": runner_killed,
    "SIGTERM of deepspeed": runner_terminated,
    "SIGTERM or SIGUSR1 of a rank": rank_terminated,
    "a host without power": host_killed,
    "link cut": link_cut,
    "SIGKILL in a save": killed_in_a_save,
    "SIGKILL at a checkpoint's publishing": killed_between_name_and_marker,
    "disk full in a save": disk_full_in_a_save,
    "SIGKILL in an op build": killed_in_an_op_build,
}


def killed_in_publishing(on: Victim, over: Callable[[], bool]) -> bool:
    """Rank 0, while the model is being put into the store. False if it was too quick for us."""
    folder = on.run / "store" / "models" / "aar"
    on.until(lambda: over() or 0 in on.ranks(), "rank 0")
    victim = on.ranks().get(0)
    before = set(os.listdir(folder))
    on.until(lambda: over() or _any(folder, lambda name: STAGING_MARK in name and name not in before), "the publishing")
    if over() or victim is None:
        return False
    time.sleep(on.random.uniform(0, 0.005))
    _kill([victim])
    return True
