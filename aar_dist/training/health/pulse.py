"""Where this rank stands: written by the loop, read by the watch. A few attributes, no lock, no network."""

import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

Phase = Literal["starting", "waiting for data", "computing", "validating", "saving", "publishing"]

SLOW: tuple[Phase, ...] = ("starting", "saving", "publishing")
"""Phases that may last ``health.slow_timeout_s``."""


class Pulse:
    """Every rank beats at the same places of the loop: one that has beaten less often is behind."""

    def __init__(self) -> None:
        self.count, self.step = 0, 0
        self.phase: Phase = "starting"
        self._warm, self._held = False, False

    def beat(self, phase: Phase, step: int) -> None:
        """This rank is about to do this, in the step that leads to ``step``."""
        while self._held:
            time.sleep(60)
        self.phase, self.step = phase, step
        self.count += 1

    def hold(self) -> None:
        """Go no further: the process is about to be ended, and a rank that was woken for it may have gone on."""
        self._held = True

    def warm(self) -> None:
        """A first step has been taken: nothing is compiled any more."""
        self._warm = True

    @property
    def slow(self) -> bool:
        """True while a sign of life may take longer."""
        return not self._warm or self.phase in SLOW

    def standing(self) -> "Standing":
        """For the other ranks."""
        return Standing(self.count, self.step, self.phase)


@dataclass(frozen=True, order=True)
class Standing:
    """Where a rank stands; the less, the further behind."""

    count: int
    step: int
    phase: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"step {self.step} ({self.phase})"
