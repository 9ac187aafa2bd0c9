"""One attempt from its launch to its end: what it does meanwhile, and when to end it.

launch -> (first step) -> launcher ends | host does not answer | no step for too long | asked to stop -> noticed
"""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from aar_dist.base import last_word
from aar_dist.training import checkpoints
from aar_dist.training.metrics import last_step
from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.supervision import leftovers
from aar_dist.training.supervision.attempts import Attempt
from aar_dist.training.supervision.saying import show

LOOK_EVERY_S = 0.5
LEFT = re.compile(rb"pdsh@\S+: \S+: ssh exited with exit code")
"""Told by pdsh of a host whose launcher failed. The ranks of other hosts may wait for it for long."""
NOISE = re.compile(rb"Unable to find hostfile|\[INFO\] \[(launch|runner)\.py:|^pdsh@\S+: .*command in progress")
"""Told by DeepSpeed's launcher on other hosts whatever its log level, and by pdsh."""
LAST_WORDS_S = 2.0
"""For a launcher to pass on what its ranks have said."""
FAREWELL_S = 10.0
"""A launcher that goes on for so long after the ranks' last word, or after the marker, waits for nobody."""


@dataclass(frozen=True)
class Noticed:
    """What ended an attempt, as seen from outside."""

    what: str
    hopeless: bool = False
    """True if its ranks cannot save any more."""


class Watch:
    """An attempt that runs."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], directory: RunDirectory, said: Path, log: Path
    ) -> None:
        self._directory, self._said = directory, said
        self.from_step = newest_step(directory)
        self.ready: float | None = None
        self.reached = self.from_step
        self.started, self._moved = time.time(), time.monotonic()
        self._saved, self._over = self.from_step, 0.0
        self.saved: float | None = None
        self._process = subprocess.Popen(
            command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,  # signals of the terminal are for the supervisor
        )  # fmt: skip
        assert self._process.stdout is not None
        threading.Thread(target=self._copy, args=(self._process.stdout, log), name="output", daemon=True).start()

    def until_noticed(self, stall_s: float, look: Callable[[], Noticed | None]) -> Noticed:
        """Wait until something ends the attempt, and say what.

        Args:
            stall_s: Longest time without a step.
            look: Called again and again; what it says ends the attempt.
        """
        while True:
            code = self._process.poll()
            self._look()
            if code is not None:
                return Noticed(f"the launcher ended with exit code {code}")
            if self._done_for(FAREWELL_S):
                return Noticed("the launcher did not end")
            if time.monotonic() - self._moved > stall_s:  # a computer that slept has not stalled
                return Noticed(f"no step for {stall_s:.0f} s", hopeless=True)
            if noticed := look():
                return noticed
            time.sleep(LOOK_EVERY_S)

    def end(self) -> None:
        """End the launcher, and what it started on this machine, once its ranks are gone. Not by SIGTERM: at that
        ``deepspeed --hostfile`` ends every launch of this user on its hosts, those of other runs as well."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LAST_WORDS_S)
        started: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):  # pdsh gives each ssh a session of its own
            started = psutil.Process(self._process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        leftovers.kill(started)
        self._process.wait()
        self._look()

    def attempt(self, number: int, hosts: list[str], ranks: int, how: str) -> Attempt:
        """The record of it, now that it has ended."""
        return Attempt(
            number=number,
            hosts=hosts,
            ranks=ranks,
            from_step=self.from_step,
            to_step=newest_step(self._directory),
            reached=self.reached,
            started=self.started,
            ready=self.ready,
            saved=self.saved,
            ended=time.time(),
            how=how,
        )

    def _look(self) -> None:
        """Notice steps and checkpoints."""
        step = last_step(self._directory.metrics, since=self.started)
        if step is not None and step > self.reached:
            self.reached, self._moved = step, time.monotonic()
            self.ready = self.ready or time.time()
        if (step := newest_step(self._directory)) > self._saved:
            self._saved, self.saved = step, time.time()

    def _copy(self, output: IO[bytes], log: Path) -> None:
        """The launch's output to a file of its own, and what a person wants to see of it to the terminal."""
        with output:
            for line in output:
                if not NOISE.search(line):
                    show(line)
                if LEFT.match(line):
                    self._over = self._over or time.time()
                with contextlib.suppress(OSError), open(log, "ab") as file:  # a full disk: the terminal has it
                    file.write(line)

    def _done_for(self, seconds: float) -> bool:
        """True once the ranks have long had their last word, or those of one host have failed."""
        if not self._over and (last_word.read(self._said) or self._directory.finished()):
            self._over = time.time()
        return bool(self._over) and time.time() - self._over > seconds


def newest_step(directory: RunDirectory) -> int:
    """Step of the newest complete checkpoint; 0 without one."""
    found = checkpoints.complete(directory.checkpoints)
    return int(found[-1].name.removeprefix("step_")) if found else 0
