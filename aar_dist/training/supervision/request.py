"""Ctrl-C or SIGTERM to the supervisor: remembered, and acted on where it waits."""

import signal
import time
from types import FrameType

LOOK_EVERY_S = 0.5


class Request:
    """A person's wish to stop."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        """Signals received, in order."""

    def listen(self) -> "Request":
        """Take the signals over."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.numbers.append(number)

    def __bool__(self) -> bool:
        return bool(self.numbers)

    @property
    def why(self) -> str:
        """In words; empty without a request."""
        return f"the supervisor got {signal.Signals(self.numbers[0]).name}" if self.numbers else ""

    def sleep(self, seconds: float) -> None:
        """Wait, but not for a person who wants to leave."""
        until = time.monotonic() + seconds
        while not self and (left := until - time.monotonic()) > 0:
            time.sleep(min(LOOK_EVERY_S, left))
