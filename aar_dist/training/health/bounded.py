"""What may never end (a stopped server, a disk that is gone), waited for so long and no longer."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Bounded(Generic[T]):
    """Something that is done in a thread of its own."""

    def __init__(self, act: Callable[[], T]) -> None:
        self._made: list[T] = []

        def run() -> None:
            # A store that is gone, a disk that refuses: whoever waits gets nothing, and must live with that anyway.
            with suppress(RuntimeError, OSError):
                self._made.append(act())

        self._thread = threading.Thread(target=run, name="bounded", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> T | None:
        """The result, or None if there is none by then."""
        self._thread.join(seconds)
        return self._made[0] if self._made else None

    @property
    def done(self) -> bool:
        """False while it lasts."""
        return not self._thread.is_alive()
