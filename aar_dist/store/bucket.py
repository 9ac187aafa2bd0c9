"""A store in a bucket, where nothing can be renamed, and one behind a web server, which is only read.

    claim.json, only if new   -> the number is this publisher's
    the files                 -> written, and read back
    manifest.json, only if new, last: from now on there is a version

Whoever finds a claim whose publisher is gone writes the manifest in its place, as that of a removed version, only if
new: one of the two wins, whatever the clocks say, and a publisher that was only slow begins again with another number.
"""

import json
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from aar_dist.base import storage
from aar_dist.base.cache import Cache
from aar_dist.base.errors import StorageError
from aar_dist.base.object_store import SCHEMES
from aar_dist.base.remote import Missing, Refused, Remote
from aar_dist.base.this_process import has_ended, this_process
from aar_dist.store import index
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.store.manifest import MANIFEST, now, spent
from aar_dist.store.pulled import Digest, bring
from aar_dist.store.shelf import NUMBER, ManifestOf, folder_of, read_manifest

CLAIM = "claim.json"
T = TypeVar("T")
SILENT = timedelta(days=1)
"""Age of a claim whose publisher on another machine is taken for gone."""


class BucketShelf:
    """Versions at a URL that can be listed and written."""

    def __init__(self, remote: Remote, cache: Cache | None = None) -> None:
        self.place, self._cache = remote, cache

    def names(self) -> list[str]:
        keys = (key.split("/") for key in self.place.names("models/") if key.endswith(f"/{MANIFEST}"))
        return sorted({key[1] for key in keys if len(key) == 4})

    def numbers(self, name: str) -> list[int]:
        return sorted(n for n, files in self._listed(name).items() if MANIFEST in files)

    def manifest(self, name: str, number: int) -> bytes | None:
        return read_manifest(self.place, name, number)

    def checkpoint(self, name: str, number: int, manifest: dict[str, Any]) -> Checkpoint:
        where = folder_of(name, number)
        opens = partial(bring, self.place, where, manifest, self._cache)
        return Checkpoint(name, number, manifest, self.place.at(where), opens)

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="aar_dist-") as folder, storage.one_line_errors(folder):
            yield Path(folder)

    def add(self, name: str, staged: Path, manifest: ManifestOf) -> int:
        self._refuse_without_conditions()
        self._sweep_killed(name)
        while True:
            number = self._claim(name)
            base = folder_of(name, number)
            for path in sorted(staged.iterdir()):
                self._upload(path, f"{base}/{path.name}")
            if self.place.write(f"{base}/{MANIFEST}", manifest(number), only_if_new=True):
                index.announce(self.place, name, number, self.names)
                return number
            self.clear(name, number)  # taken for gone, and swept

    def check(self, name: str) -> None:
        self._refuse_without_conditions()
        probe = f"{folder_of(name)}/probe-{secrets.token_hex(8)}"
        self.place.write(probe, b"one")
        try:
            if self.place.write(probe, b"two", only_if_new=True):
                raise StorageError(
                    f"{self.place}: the server writes over a file that was to be written only if new (If-None-Match), "
                    "so two publishers could share a number; use a server that knows it, or a folder"
                )
        finally:
            with suppress(Refused):  # a key that may write and not delete can publish
                self.place.delete(probe)

    def _refuse_without_conditions(self) -> None:
        scheme = self.place.url.partition("://")[0]
        if scheme not in SCHEMES:
            raise StorageError(
                f"{self.place}: {scheme}:// cannot write a file only if it is new, so two publishers could share a "
                "number; publish to s3://, gs://, az:// or a folder"
            )

    def _listed(self, name: str) -> dict[int, set[str]]:
        """Number -> files that are there."""
        found: dict[int, set[str]] = {}
        for key in self.place.names(f"{folder_of(name)}/"):
            parts = key.split("/")
            if len(parts) == 4 and NUMBER.fullmatch(parts[2]):
                found.setdefault(int(parts[2]), set()).add(parts[3])
        return found

    def _claim(self, name: str) -> int:
        """A number of our own."""
        number = max(self._listed(name), default=0) + 1
        who = json.dumps({**this_process(), "token": secrets.token_hex(8), "at": now()}).encode()
        while not self.place.write(f"{folder_of(name, number)}/{CLAIM}", who, only_if_new=True):
            number += 1
        return number

    def _upload(self, path: Path, key: str) -> None:
        """Write a file, and see that it is there as it should be."""
        self.place.write(key, path)
        if self.place.stream(key, Digest(), path.stat().st_size) != storage.sha256(path):
            raise StorageError(f"{self.place.at(key)}: what was written reads otherwise; try again")

    def clear(self, name: str, number: int) -> None:
        for file in self._listed(name).get(number, set()) - {MANIFEST, CLAIM}:
            self.place.delete(f"{folder_of(name, number)}/{file}")

    def _sweep_killed(self, name: str) -> None:
        for number, files in self._listed(name).items():
            if MANIFEST in files or not self._is_abandoned(name, number):
                continue
            gone = spent(name, number, "its publisher was ended")
            if self.place.write(f"{folder_of(name, number)}/{MANIFEST}", gone, only_if_new=True):
                self.clear(name, number)

    def _is_abandoned(self, name: str, number: int) -> bool:
        try:
            told = json.loads(self.place.read(f"{folder_of(name, number)}/{CLAIM}", 10_000))
            begun = datetime.fromisoformat(told["at"])
        except (Missing, ValueError, TypeError, KeyError):
            return False
        ended = has_ended(told)
        return datetime.now(UTC) - begun > SILENT if ended is None else ended


class WebShelf(BucketShelf):
    """Versions behind a web server: nothing is listed, so it is asked for one number after the other.

    A public bucket answers 403 for what is not there to those who may not list it: that is no fault unless nothing at
    all is found.
    """

    _refused: Refused | None = None

    def names(self) -> list[str]:
        return self._told(index.names(self.place))

    def numbers(self, name: str) -> list[int]:
        newest = index.newest(self.place, name)
        if not self._taken(name, newest):
            newest = 0  # set forward by hand, or removed by hand
        if self._taken(name, newest + 1):
            self._refuse_yes_to_all(name)
        while self._taken(name, newest + 1):
            newest += 1
        return self._told(list(range(1, newest + 1)))

    def manifest(self, name: str, number: int) -> bytes | None:
        try:
            return super().manifest(name, number)
        except Refused as error:
            self._note(error)
            return None

    def _taken(self, name: str, number: int) -> bool:
        base = folder_of(name, number)
        return number > 0 and any(self._exists(f"{base}/{file}") for file in (MANIFEST, CLAIM))

    def _refuse_yes_to_all(self, name: str) -> None:
        """A page that asks to log in, or one that stands for every address, would have versions without end."""
        never = f"{folder_of(name)}/0/{MANIFEST}"
        if self._exists(never):
            raise Refused(f"{self.place.at(never)}: answered, though no store has it; is {self.place} a store's URL?")

    def _exists(self, key: str) -> bool:
        try:
            return self.place.exists(key)
        except Refused as error:
            self._note(error)
            return False

    def _note(self, error: Refused) -> None:
        """Take a file for missing because of this answer. Any other answer is raised."""
        if "answered 403" not in str(error):
            raise error
        self._refused = error

    def _told(self, found: list[T]) -> list[T]:
        if not found and self._refused:
            raise self._refused
        return found

    def _refuse_without_conditions(self) -> None:
        raise Refused(f"{self.place}: nothing can be written over http; name the store behind it (s3://, a folder)")
