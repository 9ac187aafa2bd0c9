"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

PLAIN_EVERY_S = 10.0


class Advance(Protocol):
    def __call__(self, steps: float = 1.0) -> None: ...


@contextmanager
def progress(what: str, total: float) -> Iterator[Advance]:
    """Show how far ``what`` is; the yielded function advances it."""
    if sys.stderr.isatty():
        with _bar(what, total) as advance:
            yield advance
    else:
        yield _plain(what, total)


@contextmanager
def _bar(what: str, total: float) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)

        def advance(steps: float = 1.0) -> None:
            bar.advance(task, steps)

        yield advance


def _plain(what: str, total: float) -> Advance:
    done, last = 0.0, time.monotonic()

    def advance(steps: float = 1.0) -> None:
        nonlocal done, last
        done += steps
        if time.monotonic() - last > PLAIN_EVERY_S:
            last = time.monotonic()
            print(f"{what}: {100 * done / max(total, 1e-9):.0f} %", file=sys.stderr, flush=True)

    return advance
