"""A folder of files by their sha256 that stays below a limit: what goes when there is no room.

    <2 hex>/<sha256>, <2 hex>/<sha256>.<bytes>.part -> Entry …  -> the least recently used that nobody holds is removed

Room is made by one process or thread of the machine at a time (``lock``).
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aar_dist.base import storage
from aar_dist.base.locks import removed

_NAME = re.compile(r"([0-9a-f]{64})(?:\.(\d+)\.part)?")


class NoRoom(Exception):
    """All that is in the cache is in use."""

    def __init__(self, minimum: int, *, passing: bool) -> None:
        super().__init__(minimum)
        self.minimum = minimum
        """What the limit would have to be, with the file asked for [bytes]."""
        self.passing = passing
        """True if downloads of others are part of it: they can be evicted soon."""


@dataclass(frozen=True)
class Entry:
    """A file below the cache folder."""

    path: Path
    n_bytes: int
    """Of a part: what it is going to have."""
    used_at: float
    """Time of change [s]."""
    part: bool


class Room:
    """The folder and its limit."""

    def __init__(self, root: Path, limit: int) -> None:
        self.root, self.limit = root, limit
        with storage.one_line_errors(root):
            root.mkdir(parents=True, exist_ok=True)

    def disk(self) -> int:
        """Bytes that the disk has for the cache: what is free, and what is cached."""
        return shutil.disk_usage(self.root).free + self.used()

    def used(self) -> int:
        """Bytes in the cache, and those that downloads at work are going to have."""
        return sum(entry.n_bytes for entry in self.entries())

    def entries(self) -> list[Entry]:
        """All files of the cache; what else lies in its folder is not ours."""
        found = []
        for folder in self.root.glob("[0-9a-f][0-9a-f]"):
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as files:
                for file in files:
                    if named := _NAME.fullmatch(file.name):
                        with contextlib.suppress(FileNotFoundError):
                            told, size = file.stat(), named[2]
                            n_bytes = told.st_size if size is None else int(size)
                            found.append(Entry(Path(file.path), n_bytes, told.st_mtime, size is not None))
        return found

    def sweep(self) -> list[Path]:
        """Remove downloads that nobody works at any more; returns what was removed."""
        with self._alone():
            return [entry.path for entry in self.entries() if entry.part and removed(entry.path)]

    def _evict(self, n_bytes: int) -> int:
        """Let go of at least so many bytes, if there are; returns how many."""
        freed = 0
        with self._alone():
            for entry in sorted(self.entries(), key=lambda entry: (not entry.part, entry.used_at)):
                if freed >= n_bytes:
                    break
                freed += entry.n_bytes if removed(entry.path) else 0
        return freed

    def _make_room(self, part: Path) -> None:
        """Remove left-over downloads, then what was not used longest, until the rest, ``part`` among it, fits."""
        entries = self.entries()
        total = sum(entry.n_bytes for entry in entries)
        for entry in sorted(entries, key=lambda entry: (not entry.part, entry.used_at)):
            if total <= self.limit:
                return
            if removed(entry.path):
                total -= entry.n_bytes
        if total > self.limit:
            raise NoRoom(total, passing=any(e.part and e.path != part and e.path.exists() for e in entries))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process or thread of this machine at a time, for moments."""
        with (self.root / "lock").open("ab") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            yield
