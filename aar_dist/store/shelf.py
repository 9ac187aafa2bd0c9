"""Where versions lie, and how one is added: in a folder, in a bucket, or behind a web server that only reads.

    models/<name>/<number>/manifest.json, model.safetensors, …      a version, once the manifest stands
                  <number>/claim.json                               in a bucket: the number has its publisher
                  newest.json                                       a number to look from, for readers who cannot list
                  pins/<number>/<who>.json                          what starts from a version (pins.py)
    models.json                                                     the names, for the same readers

A number never becomes another version: one that is taken out leaves its manifest, which then says so.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from aar_dist.base import storage
from aar_dist.base.errors import StorageError
from aar_dist.base.local import Local, Place
from aar_dist.base.remote import Missing
from aar_dist.store import index
from aar_dist.store.checkpoint import Checkpoint, verified
from aar_dist.store.manifest import MANIFEST, MOST_TEXT

ManifestOf = Callable[[int], bytes]
"""The manifest of what is being published, under this number."""
NUMBER = re.compile(r"[1-9][0-9]{0,8}")


class Shelf(Protocol):
    """What a store asks of the place where it lies."""

    @property
    def place(self) -> Place:
        """Its files."""

    def names(self) -> list[str]:
        """Models that have, or had, a version."""

    def numbers(self, name: str) -> list[int]:
        """Numbers that may hold a version, rising."""

    def manifest(self, name: str, number: int) -> bytes | None:
        """As it stands; None where there is none (yet)."""

    def checkpoint(self, name: str, number: int, manifest: dict[str, Any]) -> Checkpoint:
        """The version; its files are verified now, or when they are first asked for."""

    def staging(self, name: str) -> AbstractContextManager[Path]:
        """A folder of this machine for what will be published."""

    def add(self, name: str, staged: Path, manifest: ManifestOf) -> int:
        """Publish, whole or not at all, under a number that nobody else gets."""

    def clear(self, name: str, number: int) -> None:
        """Delete the files of a version, but not its manifest, by which the number is spent."""

    def check(self, name: str) -> None:
        """Raise ``StorageError`` if nothing can be published here."""


def folder_of(name: str, number: int | None = None) -> str:
    """Of a model, or of one of its versions, below the store."""
    return f"models/{name}" if number is None else f"models/{name}/{number}"


def read_manifest(place: Place, name: str, number: int) -> bytes | None:
    """None where there is none."""
    with suppress(Missing):
        return place.read(f"{folder_of(name, number)}/{MANIFEST}", MOST_TEXT)
    return None


class FolderShelf:
    """A folder: versions are staged beside their place and renamed into it."""

    def __init__(self, root: Path) -> None:
        self.root, self.place = root, Local(root)

    def names(self) -> list[str]:
        return sorted(p.name for p in self.root.glob("models/*") if self.numbers(p.name))

    def numbers(self, name: str) -> list[int]:
        return sorted(int(p.name) for p in self._folder(name).glob("*") if NUMBER.fullmatch(p.name))

    def manifest(self, name: str, number: int) -> bytes | None:
        return read_manifest(self.place, name, number)

    def checkpoint(self, name: str, number: int, manifest: dict[str, Any]) -> Checkpoint:
        return verified(self._folder(name) / str(number))

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        folder = self._folder(name)
        _sweep_killed(folder)
        staged = storage.staging_name(folder / "new")
        with storage.one_line_errors(folder, staged):
            staged.mkdir(parents=True)
            yield staged

    def add(self, name: str, staged: Path, manifest: ManifestOf) -> int:
        number = max(self.numbers(name), default=0)
        while True:
            number += 1
            (staged / MANIFEST).write_bytes(manifest(number))
            try:
                storage.publish(staged, self._folder(name) / str(number))
            except FileExistsError:
                continue  # another writer was first; NFS may list its version late
            index.announce(self.place, name, number, self.names)
            return number

    def clear(self, name: str, number: int) -> None:
        for path in (self._folder(name) / str(number)).iterdir():
            if path.name != MANIFEST:
                storage.remove(path)

    def check(self, name: str) -> None:
        folder = self._folder(name)
        with storage.one_line_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()

    def _folder(self, name: str) -> Path:
        return self.root / folder_of(name)


def _sweep_killed(folder: Path) -> None:
    """Remove what publishers that were killed left behind; others may be at work beside us."""
    for left in folder.glob(f"*{storage.STAGING_MARK}*"):
        if storage.is_abandoned(left):
            mine = storage.staging_name(left.with_name("old"))
            with suppress(OSError, StorageError):  # renamed first: a publisher that lives after all loses all of it
                left.rename(mine)
                storage.remove(mine)
