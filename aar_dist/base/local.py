"""A folder of this machine with the calls of :class:`~aar_dist.base.remote.Remote`, for what lies at either."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aar_dist.base import storage
from aar_dist.base.remote import SMALL_BYTES, Missing, Refused, check_name


class Place(Protocol):
    """A folder here or at a URL. Names are relative to it, with ``/`` between folders."""

    def at(self, name: str) -> str:
        """The address of a file, for messages."""

    def read(self, name: str, limit: int = SMALL_BYTES) -> bytes:
        """A small file. Raises ``Missing``, ``Refused``, ``StorageError``."""

    def exists(self, name: str) -> bool:
        """True if there is such a file."""

    def names(self, prefix: str = "") -> list[str]:
        """The files whose names begin so, sorted."""

    def write(self, name: str, data: bytes) -> object:
        """Write a file, which appears whole, in place of what stood there."""


@dataclass(frozen=True)
class Local:
    """A folder of this machine."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def at(self, name: str) -> str:
        return str(self._path(name)) if name else str(self.root)

    def read(self, name: str, limit: int = SMALL_BYTES) -> bytes:
        path = self._path(name)
        with storage.one_line_errors(path):
            try:
                with path.open("rb") as file:
                    data = file.read(limit + 1)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise Missing(f"{path}: not there") from None
        if len(data) > limit:
            raise Refused(f"{path}: has more than {limit} bytes")
        return data

    def exists(self, name: str) -> bool:
        return self._path(name).is_file()

    def names(self, prefix: str = "") -> list[str]:
        folder = self.root / prefix.rpartition("/")[0]
        found = [Path(where, file) for where, _, files in os.walk(folder) for file in files]
        names = [path.relative_to(self.root).as_posix() for path in found if not storage.is_staging(path)]
        return sorted(name for name in names if name.startswith(prefix))

    def write(self, name: str, data: bytes) -> None:
        storage.write_bytes(self._path(name), data)

    def _path(self, name: str) -> Path:
        check_name(name)
        return self.root / name
