"""Files of a folder at a URL, read and written with patience.

    Remote("s3://bucket/set").read("dataset.json") | .fetch("a.tar", path, size) -> sha256 | .write(…) | .names()

A fault that may pass (no connection, 5xx, a stall, a body that ends early) is tried again, with growing pauses, until
nothing has come for ``Patience.read_s`` or ``fetch_s``. What stays wrong is a :class:`StorageError` of one line.
"""

import functools
import hashlib
import io
import os
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from aar_dist.base import storage
from aar_dist.base.addresses import shown
from aar_dist.base.any_store import AnyStore
from aar_dist.base.cli import human_bytes
from aar_dist.base.errors import StorageError
from aar_dist.base.object_store import SCHEMES, ObjectStore
from aar_dist.base.transport import Exists, Missing, Refused, Restart, Transport, Trouble

__all__ = ["Missing", "Patience", "Refused", "Remote", "as_location", "is_url"]

T = TypeVar("T")

SMALL_BYTES = 64_000_000
WRONG_SIZE_TRIES = 5
SPEAK_AFTER_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a server may be silent."""

    read_s: float = 30.0
    """For small requests [s]."""
    fetch_s: float = 60.0
    """For a shard: without any progress, over all attempts [s]."""
    first_pause_s: float = 0.1
    longest_pause_s: float = 5.0


def is_url(location: object) -> bool:
    """True for ``scheme://…``; paths and ``store://`` references are none."""
    return bool(re.match(r"[A-Za-z][\w+.-]+://", str(location))) and not str(location).startswith("store://")


def as_location(text: str) -> Path | str:
    """A URL as it is, anything else as a path."""
    return text if is_url(text) else Path(text)


@dataclass(frozen=True)
class Remote:
    """A folder at a URL: s3, gs, az and http(s) by obstore, any other scheme by the fsspec driver that is installed.

    It may travel to other processes; ``str`` of it holds no secret. http(s) is only read and not listed.
    """

    url: str = field(repr=False)
    patience: Patience = Patience()

    def __str__(self) -> str:
        try:
            return shown(urlsplit(self.url))
        except ValueError:
            raise Refused("a URL that cannot be read: brackets without an IPv6 address?") from None

    def at(self, name: str) -> str:
        """The address of a file, for messages."""
        return f"{self}/{name}".rstrip("/")

    def read(self, name: str, limit: int = SMALL_BYTES) -> bytes:
        """A small file, at most ``limit`` bytes. Raises ``Missing``, ``Refused``, ``StorageError``."""
        file = io.BytesIO()
        got = _Download(file, limit=limit)
        self._patiently(name, lambda t: got.attempt(t, name), self.patience.read_s, got.n_bytes)
        return file.getvalue()

    def fetch(self, name: str, into: Path, size: int) -> str:
        """Stream a file of exactly ``size`` bytes into ``into``; its hex sha256, computed on the way.

        Raises ``Missing``, ``Refused``, or ``StorageError`` (of the server, after the patience is spent, or of the
        disk). What has come by then is left in ``into``.
        """
        with storage.one_line_errors(into), open(into, "wb") as file:
            return self.stream(name, file, size)

    def stream(self, name: str, into: "Sink", size: int) -> str:
        """:func:`fetch` into anything that can be written to and emptied."""
        got = _Download(into, size=size)
        self._patiently(name, lambda t: got.attempt(t, name), self.patience.fetch_s, got.n_bytes)
        return got.digest.hexdigest()

    def size(self, name: str) -> int:
        """Bytes of a file. Raises ``Missing`` where there is none."""
        return self._patiently(name, lambda t: t.size(name), self.patience.read_s)

    def exists(self, name: str) -> bool:
        """True if there is such a file."""
        try:
            return self.size(name) >= 0
        except Missing:
            return False

    def names(self, prefix: str = "") -> list[str]:
        """The files whose names begin so, sorted; object stores only."""
        return self._patiently(prefix, lambda t: t.names(prefix), self.patience.read_s, plain=False)

    def write(self, name: str, data: bytes | Path, *, only_if_new: bool = False) -> bool:
        """Write a file, which appears whole. False if ``only_if_new`` and another one has the name already."""

        def attempt(transport: Transport) -> bool:
            try:
                transport.put(name, data, only_if_new=only_if_new)
            except Exists:
                return _holds(transport, name, data if isinstance(data, bytes) else data.read_bytes())
            return True

        return self._patiently(name, attempt, self.patience.fetch_s)

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if there is none."""
        try:
            self._patiently(name, lambda t: t.delete(name), self.patience.read_s)
        except Missing:
            return

    def _patiently(
        self,
        name: str,
        attempt: Callable[[Transport], T],
        deadline_s: float,
        progress: Callable[[], int] = lambda: 0,
        *,
        plain: bool = True,
    ) -> T:
        """Try until it works, or until nothing has moved for ``deadline_s``."""
        if plain:
            check_name(name)
        clock = _Clock(self.at(name), self.patience, deadline_s)
        while True:
            before = progress()
            try:
                return attempt(_transport(self.url, os.getpid()))
            except Trouble as trouble:
                clock.wait(trouble, moved=progress() > before)
            except (Missing, Refused) as error:
                raise type(error)(f"{self.at(name)}: {_hint(self.url, error)}") from None


def _holds(transport: Transport, name: str, ours: bytes) -> bool:
    """Whether what has the name is ours: an attempt whose answer was lost may have written it."""
    try:
        if transport.size(name) != len(ours):
            return False
        held = b"".join(transport.open(name, 0).pieces)
    except Missing:  # S3 answers 409, which is taken for "it exists", while another writes it
        raise Trouble("another one was writing it") from None
    if len(held) < len(ours):
        raise Trouble(f"{len(held)} of {len(ours)} bytes came")
    return held == ours


def check_name(name: str) -> None:
    """Refuse a name that is no plain relative path: nothing outside the folder can be meant."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or re.search(r"[\x00-\x1f\x7f\\]", name):
        raise Refused(f"{name!r} is no name of a file in this folder")


@functools.lru_cache(maxsize=64)
def _transport(url: str, pid: int) -> Transport:
    """The client of this URL, made once in each process."""
    parts = urlsplit(url)
    return ObjectStore(parts) if parts.scheme in SCHEMES else AnyStore(url)


class _Clock:
    """Pauses between attempts, and the end of patience."""

    def __init__(self, what: str, patience: Patience, deadline_s: float) -> None:
        self._what, self._patience, self._deadline_s = what, patience, deadline_s
        self._begin = self._moved = time.monotonic()
        self._pause = patience.first_pause_s
        self._spoken = False

    def wait(self, trouble: Trouble, *, moved: bool) -> None:
        """Sleep before the next attempt. Raises ``StorageError`` when there is to be none."""
        now = time.monotonic()
        if moved:
            self._moved, self._pause = now, self._patience.first_pause_s
        left = self._moved + self._deadline_s - now
        if left <= 0:
            raise StorageError(f"{self._what}: {trouble}; tried again for {now - self._begin:.0f} s") from None
        if not self._spoken and now - self._moved > SPEAK_AFTER_S:
            self._spoken = True
            print(f"{self._what}: {trouble}; trying again for {left:.0f} s", file=sys.stderr, flush=True)
        # Jitter: many ranks lose a server at the same moment and must not all come back at the same moment.
        time.sleep(min(left, self._pause * random.uniform(0.5, 1.0)))
        self._pause = min(2 * self._pause, self._patience.longest_pause_s)


class Sink(Protocol):
    """Where bytes go: a file opened for writing, or what behaves so."""

    def write(self, piece: bytes, /) -> int: ...
    def seek(self, place: int, /) -> int: ...
    def truncate(self) -> int: ...


class _Download:
    """A file as far as it has come, over several attempts."""

    def __init__(self, file: Sink, *, size: int | None = None, limit: int | None = None) -> None:
        self.file, self._size, self._limit = file, size, limit
        self._tag: str | None = None
        self._wrong = 0
        self._most = 0
        self._begin()

    def _begin(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.digest = hashlib.sha256()
        self._n, self._told = 0, -1

    def n_bytes(self) -> int:
        """The most that has ever come: a beginning that is sent again and again is no progress."""
        return self._most

    def attempt(self, transport: Transport, name: str) -> None:
        """Read on from where the last attempt broke off."""
        if self._n == self._told:  # all had come, and the connection broke after it
            return
        try:
            body = transport.open(name, self._n)
            self._check(body.size)
            if self._n and body.tag != self._tag:
                raise Restart("the file was replaced while it was read")
            self._tag, self._told = body.tag, body.size
            for piece in body.pieces:
                self._take(piece)
        except Restart:
            self._begin()
            raise
        if self._n != body.size:
            raise Trouble(f"{self._n} of {body.size} bytes came")

    def _take(self, piece: bytes) -> None:
        self._n += len(piece)
        if self._n > (self._size if self._limit is None else self._limit):  # type: ignore[operator]
            raise Restart("more bytes came than were told")
        self.file.write(piece)
        self.digest.update(piece)
        self._most = max(self._most, self._n)

    def _check(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            raise Refused(f"has {human_bytes(size)}, expected at most {human_bytes(self._limit)}")
        if self._size is not None and size != self._size:
            self._wrong += 1
            words = f"has {size} bytes, expected {self._size}: cut short or of another build"
            raise (Refused if self._wrong >= WRONG_SIZE_TRIES else Restart)(words)


def _hint(url: str, error: Exception) -> str:
    text = str(error)
    if url.startswith("s3") and ("credentials" in text or re.search(r"answered 40[13]", text)):
        text += "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SKIP_SIGNATURE=true for public data)"
    return text
