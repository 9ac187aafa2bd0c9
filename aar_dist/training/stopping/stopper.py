"""Stopping cleanly when asked.

SIGTERM, SIGUSR1, Ctrl-C -\
time limit               --> remembered by this rank -> agreed by all, in the same place -> the run saves and leaves
launcher gone            -/

The launcher sends SIGTERM to one rank after the other, half a minute apart, and then kills: no rank may act on its own
signal. All agree at the end of each step, and within long steps and validations every few seconds.
"""

import signal
import time
from types import FrameType, TracebackType
from typing import Any

from aar_dist.base import last_word
from aar_dist.training.ranks import Ranks, max_ranks
from aar_dist.training.stopping.deadline import Deadline
from aar_dist.training.stopping.launcher import LauncherWatch

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
LOOK_EVERY_S = 4.0
"""Within a step or a validation the ranks agree this often."""
TIME_LIMIT, LAUNCHER_GONE = 100, 101  # beside the numbers of signals
RANKS = 1 << 20


class Stopper:
    """Listens while it is open; a second Ctrl-C ends the process on the spot. Every rank makes the same calls."""

    def __init__(self, ranks: Ranks, deadline: Deadline | None = None, launcher: LauncherWatch | None = None) -> None:
        self._rank, self._deadline, self._launcher = ranks.rank, deadline or Deadline(None), launcher
        self._asked = 0
        self._before: dict[signal.Signals, Any] = {}
        self._units, self._unit_s = 0, 0.0
        self._since = self._step_began = time.monotonic()
        self.reason = ""
        """Why all ranks stop, in words; empty while they do not."""
        self.kind = last_word.STOPPED
        """For the last word."""

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._asked = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def after_step(self) -> bool:
        """True on every rank if any of them is to stop: at the end of a step."""
        self._units += 1
        stops = self._agree(ahead_s=time.monotonic() - self._step_began)
        self._step_began = time.monotonic()
        return stops

    def within(self) -> bool:
        """The same after a micro-batch that does not end its step, and after a batch of validation. Asked at each;
        agreed, which costs a collective, every few seconds."""
        self._units += 1
        if self._unit_s and self._units * self._unit_s < LOOK_EVERY_S:
            return False
        return self._agree(ahead_s=self._unit_s)

    def saved(self, seconds: float) -> None:
        """How long it took to save: so much earlier must a run stop that has a time limit."""
        self._deadline.save_s = max(seconds, self._deadline.save_s if self._deadline.measured else 0.0)
        self._deadline.measured = True

    def begin_step(self) -> None:
        """Measure from here: what came before, a start or a validation, tells nothing of a step."""
        self._since = self._step_began = time.monotonic()
        self._units = 0

    def _agree(self, ahead_s: float) -> bool:
        self._asked = self._asked or self._own_reason(ahead_s)
        unit_s = max(time.monotonic() - self._since, 1e-6) / max(self._units, 1)
        found, self._unit_s = max_ranks(RANKS * self._asked + self._rank if self._asked else 0, unit_s)
        self._since, self._units = time.monotonic(), 0
        if found:
            reason, rank = divmod(int(found), RANKS)
            self.reason = in_words(reason, rank)
            self.kind = last_word.TIME_LIMIT if reason == TIME_LIMIT else last_word.STOPPED
        return bool(found)

    def _own_reason(self, ahead_s: float) -> int:
        if self._launcher and self._launcher.gone():
            return LAUNCHER_GONE
        return TIME_LIMIT if self._deadline.near(ahead_s) else 0

    def __enter__(self) -> "Stopper":
        self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def in_words(reason: int, rank: int) -> str:
    """What a person is told."""
    if reason == TIME_LIMIT:
        return "its time limit is near"
    what = "lost its launcher" if reason == LAUNCHER_GONE else f"got {signal.Signals(reason).name}"
    return f"rank {rank} {what}"
