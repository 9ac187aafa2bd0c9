"""Python stacks in ``log/stacks_rank_k.txt``: every thread's when the watch asks, the main thread's on a signal.

    kill -USR2 PROCESS      writes the main thread's stack of a running rank; it goes on

Signals are answered in C, whoever holds the interpreter's lock: so that of the main thread only, in which the kernel
runs the handler. The frames of other threads may change and vanish while they are read, which ended ranks by SIGSEGV.
A rank that dies of SIGBUS (a file that was cut while it was mapped), SIGSEGV, SIGFPE or SIGABRT leaves its stacks in
its own log.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from aar_dist.training.health.verdict import Place

ASK = signal.SIGUSR2
LATE = signal.SIGALRM


class Stacks:
    """The file of this rank, open while the run lasts; removed at the end if nothing was written."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder = folder
        self.path = path_of(folder, rank)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (kept open: a signal handler opens nothing)
        self._log = open(folder / f"rank_{rank}.log", "a", encoding="utf-8")  # noqa: SIM115
        self._lock, self._closed = threading.Lock(), False
        self._was_enabled = faulthandler.is_enabled()
        faulthandler.enable(self._log)
        for number in (ASK, LATE):
            faulthandler.register(number, self._file, all_threads=False)

    def write(self, why: str) -> None:
        """All threads of this process."""
        self._file.write(f"{_now()} {why}\n")
        self._file.flush()
        faulthandler.dump_traceback(self._file, all_threads=True)
        os.fsync(self._file.fileno())

    def guard(self, seconds: float) -> None:
        """Write the main thread's after so many seconds, unless this is called again before: a watch that cannot run,
        since somebody keeps the interpreter's lock, calls no more."""
        with self._lock:
            if not self._closed:  # nobody would listen: the alarm would end the process
                signal.setitimer(signal.ITIMER_REAL, seconds)

    def wake(self, place: Place, why: str) -> None:
        """Have a process of this host write its stacks, also one that is stopped."""
        with suppress(OSError, psutil.Error):
            # The number of one that has ended may be another's by now, and this signal ends who does not know it.
            if psutil.Process(place.process).create_time() != place.born:
                return
            with open(path_of(self._folder, place.rank), "a", encoding="utf-8") as file:
                file.write(f"{_now()} {why}\n")
            os.kill(place.process, ASK)
            os.kill(place.process, signal.SIGCONT)

    def close(self) -> None:
        """Back to how signals were."""
        with self._lock:
            self._closed = True
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (ASK, LATE):
            faulthandler.unregister(number)
        faulthandler.disable()
        if self._was_enabled and sys.__stderr__ is not None:
            with suppress(OSError, ValueError):
                faulthandler.enable(sys.__stderr__)
        self._file.close()
        self._log.close()
        if self.path.exists() and not self.path.stat().st_size:
            self.path.unlink()


def path_of(folder: Path, rank: int) -> Path:
    """Where a rank's stacks are."""
    return folder / f"stacks_rank_{rank}.txt"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
