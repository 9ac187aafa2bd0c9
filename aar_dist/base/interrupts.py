"""Asked to stop: Ctrl-C or SIGTERM becomes one line that says whether work is lost, and no traceback.

@user_entry
@resumes            SIGTERM -> Terminated, wherever the program stands -> "interrupted: …", exit code 143 (Ctrl-C: 130)
def main(): …
"""

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

GOES_ON = "nothing that was finished is lost, and the same command goes on"


class Terminated(KeyboardInterrupt):
    """SIGTERM, where Ctrl-C is a ``KeyboardInterrupt``."""


def resumes(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate the ``main`` of a command that goes on where it was stopped, below :func:`errors.user_entry`."""

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _sigterm_raises() as received:
            try:
                return main(*args, **kwargs)
            except KeyboardInterrupt:
                # Ray makes a plain KeyboardInterrupt of ours.
                raise (Terminated if received else KeyboardInterrupt)(GOES_ON) from None

    return run


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """SIGTERM is handled after the block as before it: libraries take it for themselves when they are started."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if _may_handle():
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _sigterm_raises() -> Iterator[list[int]]:
    """The signals that came, so far."""
    received: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise Terminated

    if not _may_handle():
        yield received
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def _may_handle() -> bool:
    """Python lets the main thread alone set handlers."""
    return threading.current_thread() is threading.main_thread()
