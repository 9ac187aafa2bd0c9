"""What one request to a server can bring, without patience.

    Transport -> body of a file from a byte on | size | put | delete | names

What fails is sorted here, once: ``Missing`` and ``Refused`` are answers, ``Trouble`` is worth another try. Nothing that
a client library says is passed on as it is, because it holds URLs and with them passwords and signatures.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aar_dist.base.errors import StorageError

PIECE_BYTES = 1 << 20
CONNECT_S, STALL_S = 5.0, 15.0


class Missing(StorageError):
    """There is no such file at the URL."""


class Refused(StorageError):
    """An answer that another try would not change: no permission, a bad request."""


class Trouble(Exception):
    """A fault that may pass: the message tells it in a few words."""


class Restart(Trouble):
    """The file cannot be had from the middle on, or is another one by now: begin again."""


class Exists(Exception):
    """The name is taken, and only a new one was to be written."""


@dataclass(frozen=True)
class Body:
    """What comes when a file is read."""

    size: int
    """Of the whole file, as the server tells it [bytes]."""
    tag: str | None
    """Changes when the file does, if the server has such a thing."""
    pieces: Iterator[bytes]
    """Raises ``Trouble`` where the body ends too early."""


class Transport(Protocol):
    """One folder of a server. Names are relative to it."""

    def open(self, name: str, start: int) -> Body: ...
    def size(self, name: str) -> int: ...
    def put(self, name: str, data: bytes | Path, *, only_if_new: bool) -> None: ...
    def delete(self, name: str) -> None: ...
    def names(self, prefix: str) -> list[str]: ...


def gist(error: BaseException) -> str:
    """The first line of a client's error, without URLs."""
    first = re.sub(r"\S+://\S+", "the URL", str(error).partition("\n")[0])
    return f"{type(error).__name__}: {first[:200]}"
