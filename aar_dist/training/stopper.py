"""Stopping cleanly when asked.

The launcher sends SIGTERM to one rank after the other, half a minute apart, and then kills: no rank may act on its own
signal. The handler only remembers it; all ranks agree at the next step.
"""

import signal
from types import FrameType, TracebackType
from typing import Any

from aar_dist.training.ranks import any_rank

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopper:
    """Listens for SIGTERM, SIGUSR1 and SIGINT while it is open; a second Ctrl-C ends the process on the spot."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def agreed(self) -> bool:
        """True on every rank if any of them was asked to stop."""
        return any_rank(self._asked)

    def __enter__(self) -> "Stopper":
        self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
