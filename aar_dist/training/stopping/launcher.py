"""Ranks whose launcher died would train on without anyone who knows: they notice, and stop.

    deepspeed (runner) -> deepspeed.launcher.launch -> rank

Each of the two may be killed alone, and tells nobody below: SIGTERM to ``deepspeed`` on one machine, or the death of
the launcher, leaves the ranks to the init process.
"""

import logging
import os
import sys
import threading
from collections.abc import Sequence

import psutil

from aar_dist.training.meeting.launcher import launcher_flags

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
LAST_S = 120.0
"""A rank that has not stopped so long after its launcher's death is ended: it waits for what never comes."""
ORPHAN_EXIT = 4
LAUNCH = "deepspeed.launcher.launch"


class LauncherWatch:
    """Watches the processes that launched this one, if DeepSpeed's launcher did."""

    def __init__(self, argv: Sequence[str] = sys.argv, last_s: float = LAST_S) -> None:
        self._parent = os.getppid()
        # DeepSpeed's launcher gives its ranks this flag: one that is none of its children has lost it before now.
        launched = any(word.startswith("--local_rank=") for word in argv)
        self._lost = launched and LAUNCH not in _command(self._parent)
        self._runner = _runner(self._parent)
        self._over, self._last_s = threading.Event(), last_s

    def gone(self) -> bool:
        """True if one of them has died."""
        if not self._lost:
            self._lost = os.getppid() != self._parent or self._runner != (self._runner and _parent(self._parent))
        return self._lost

    def watch(self) -> "LauncherWatch":
        """End this process if it goes on for long without."""
        threading.Thread(target=self._watch, name="launcher", daemon=True).start()
        return self

    def close(self) -> None:
        """Stop watching."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            if self.gone():
                log.warning("the launcher of this rank is gone: stopping")
                if not self._over.wait(self._last_s):
                    log.error("no step ended within %.0f s: leaving as it is", self._last_s)
                    logging.shutdown()
                    os._exit(ORPHAN_EXIT)
                return


def _command(pid: int) -> Sequence[str]:
    try:
        words: list[str] = psutil.Process(pid).cmdline()
    except psutil.Error:
        return ()
    return words


def _parent(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).ppid())
    except psutil.Error:
        return None


def _runner(launcher: int) -> int | None:
    """The ``deepspeed`` command that started the launcher on this machine; None where another program did."""
    if LAUNCH not in _command(launcher):
        return None
    runner = _parent(launcher)
    return runner if runner and launcher_flags(_command(runner)) is not None else None
