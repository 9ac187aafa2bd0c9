"""A store: ``models/<name>/<version>`` below a folder, a bucket, or a web server that only reads.

publish(name, weights, …) -> staged, hashed -> the next free number
resolve("store://name@latest" | "store://name@3" | a folder | a URL of one) -> Checkpoint, verified
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from aar_dist.base import storage
from aar_dist.base.cache import Cache
from aar_dist.base.errors import CheckpointError
from aar_dist.base.object_store import WEB
from aar_dist.base.remote import Missing, Remote, is_url
from aar_dist.base.wording import some
from aar_dist.store.bucket import BucketShelf, WebShelf
from aar_dist.store.checkpoint import CARD, CONFIG, METRICS, WEIGHTS, Checkpoint, verified
from aar_dist.store.manifest import ADDRESS, MANIFEST, MOST_TEXT, NAME, Removed, as_bytes, now, parsed
from aar_dist.store.shelf import FolderShelf, Shelf, folder_of

SCHEME = "store://"
REFERENCE = re.compile(r"store://(?P<name>[\w.-]+)@(?P<version>latest|[1-9][0-9]{0,8})")
ENVIRONMENT = "AAR_DIST_STORE"
"""Names the store that is meant where none is named."""


@dataclass(frozen=True)
class Store:
    """Trained models below one place."""

    root: Path | str
    """A folder, or a URL."""
    cache: Cache | None = None
    """For what comes from a URL; None for the cache of this machine."""

    def __str__(self) -> str:
        return str(self.shelf.place)

    @cached_property
    def shelf(self) -> Shelf:
        """How to read and write there."""
        if not is_url(self.root):
            return FolderShelf(Path(self.root))
        remote = Remote(str(self.root).rstrip("/"))
        return (WebShelf if remote.url.startswith(tuple(f"{s}:" for s in WEB)) else BucketShelf)(remote, self.cache)

    def names(self) -> list[str]:
        """Models with at least one version."""
        return [name for name in self.shelf.names() if next(self.newest_first(name), None)]

    def versions(self, name: str) -> list[int]:
        """Numbers of the published versions, rising."""
        return [number for number, _ in self.newest_first(name)][::-1]

    def newest_first(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """The versions that are there, with their manifests. Raises ``CheckpointError`` for one that says nonsense."""
        for number in reversed(self.shelf.numbers(name)):
            with contextlib.suppress(Removed):
                if (manifest := self.manifest(name, number)) is not None:
                    yield number, manifest

    def manifest(self, name: str, number: int) -> dict[str, Any] | None:
        """What a version says of itself; None if there is none. Raises ``Removed``, ``CheckpointError``."""
        if (text := self.shelf.manifest(name, number)) is None:
            return None
        where = self.shelf.place.at(f"{folder_of(name, number)}/{MANIFEST}")
        told = parsed(text, where)
        if (told["name"], told["version"]) != (name, number):
            raise CheckpointError(
                f"{where} tells of store://{told['name']}@{told['version']}: a version was copied by hand; take it "
                "away and use aar-dist store push"
            )
        return told

    def text(self, name: str, number: int, manifest: Mapping[str, Any], file: str) -> str:
        """A small file of a version. Raises ``CheckpointError`` if it is missing or damaged."""
        key = f"{folder_of(name, number)}/{file}"
        try:
            data = self.shelf.place.read(key, MOST_TEXT)
        except Missing:
            raise CheckpointError(f"{self.shelf.place.at(key)} is missing. Publish the model again") from None
        if sha256(data).hexdigest() != manifest["files"][file]:
            raise CheckpointError(f"{self.shelf.place.at(key)} is damaged. Publish the model again")
        return data.decode(errors="replace")

    def publish(
        self,
        name: str,
        weights: Mapping[str, Tensor],
        *,
        config: str,
        card: str,
        metrics: Mapping[str, Any],
        about: Mapping[str, Any],
    ) -> Checkpoint:
        """Add a version: whole, or not at all, under a number that nobody else gets.

        Args:
            weights: Parameter -> tensor; stored as fp32.
            config: The resolved configuration (YAML), enough to rebuild the module.
            card: Markdown, for people.
            metrics: The last validation.
            about: Further lines of the manifest: shard set, step.
        """

        def write(staged: Path) -> None:
            (staged / WEIGHTS).write_bytes(_safetensors(weights))
            (staged / CONFIG).write_text(config)
            (staged / CARD).write_text(card)
            (staged / METRICS).write_text(json.dumps(metrics, indent=1) + "\n")

        return self.add(name, write, {"code": code_version(), **about})

    def add(self, name: str, write: Callable[[Path], None], about: Mapping[str, Any]) -> Checkpoint:
        """Publish the files that ``write`` puts into a folder."""
        if not NAME.fullmatch(name):
            raise CheckpointError(f"{name!r} is no name of a model, expected letters, digits, '-', '_' and '.'")
        with self.shelf.staging(name) as staged:
            write(staged)
            files = storage.hash_tree(staged)
            sizes = {file: (staged / file).stat().st_size for file in files}
            facts = {"published": now(), **about, "files": files, "bytes": sizes}

            def manifest(number: int) -> bytes:
                return as_bytes({"name": name, "version": number, **facts})

            number = self.shelf.add(name, staged, manifest)
        return self.shelf.checkpoint(name, number, parsed(manifest(number), name))

    def find(self, name: str, about: Mapping[str, Any]) -> Checkpoint | None:
        """The newest whole version whose manifest says all of this."""
        for number in reversed(self.shelf.numbers(name)):
            with contextlib.suppress(CheckpointError):
                told = self.manifest(name, number)
                if told and all(told.get(key) == value for key, value in about.items()):
                    return self.shelf.checkpoint(name, number, told)
        return None

    def get(self, name: str, which: str = "latest") -> Checkpoint:
        """A version of a model, verified. Raises ``CheckpointError`` if there is none, or if it is damaged."""
        while True:
            number, manifest = self.look(name, which)
            try:
                made = self.shelf.checkpoint(name, number, manifest)
                made.path  # noqa: B018  verifies
                return made
            except CheckpointError:
                # Taken out while it was read: another one is the latest now, and of a number the reason is told.
                with contextlib.suppress(Removed):
                    self.manifest(name, number)
                    raise
                if which != "latest":
                    self.manifest(name, number)

    def look(self, name: str, which: str = "latest") -> tuple[int, dict[str, Any]]:
        """Number and manifest of a version; its files are not read. Raises ``CheckpointError`` if there is none."""
        if which == "latest":
            if found := next(self.newest_first(name), None):
                return found
            raise self._no_model(name)
        if (manifest := self.manifest(name, int(which))) is not None:
            return int(which), manifest
        if versions := self.versions(name):
            raise CheckpointError(f"store {self} has no version {which} of {name!r}; it has {_listed(versions)}")
        raise self._no_model(name)

    def _no_model(self, name: str) -> CheckpointError:
        return CheckpointError(f"store {self} has no model {name!r}; it has {some(self.names()) or 'nothing'}")


def resolve(reference: str, store: str | Path | None = None, cache: Cache | None = None) -> Checkpoint:
    """The checkpoint meant by ``store://name@latest``, ``store://name@3``, or the folder (or its URL) of a version.

    Args:
        reference: What a person wrote.
        store: Folder or URL of the store that ``store://`` speaks of; None for the one that AAR_DIST_STORE names.
        cache: For what comes from a URL; None for the cache of this machine.

    Raises:
        CheckpointError: no such thing, or a damaged one.
        StorageError: of a server.
    """
    if is_url(reference):
        if not (at := ADDRESS.fullmatch(reference)):
            raise CheckpointError(f"{Remote(reference)}: expected the URL of a version: STORE/models/NAME/NUMBER")
        return Store(at["store"], cache).get(at["name"], at["version"])
    if not reference.startswith(SCHEME):
        return verified(Path(reference))
    name, which = named(reference)
    return Store(store_of(store, reference), cache).get(name, which)


def named(reference: str) -> tuple[str, str]:
    """Name and version (``latest`` or a number) of ``store://name@version``. Raises ``CheckpointError``."""
    match = REFERENCE.fullmatch(reference)
    if not match or not NAME.fullmatch(match["name"]):
        raise CheckpointError(f"{reference}: expected store://name@latest or store://name@3")
    return match["name"], match["version"]


def store_of(store: str | Path | None, what: str) -> str | Path:
    """The store that is meant. Raises ``CheckpointError`` if none is named; ``what`` was asked for."""
    if chosen := store or os.environ.get(ENVIRONMENT):
        return chosen
    raise CheckpointError(
        f"{what}: in which store? Set store.path (--store of a tool, or the variable {ENVIRONMENT}), or give the "
        "folder of the version"
    )


def _listed(versions: list[int]) -> str:
    return some([str(number) for number in versions], 20)


def _safetensors(weights: Mapping[str, Tensor]) -> bytes:
    return save({name: value.detach().float().cpu().contiguous().clone() for name, value in weights.items()})


def code_version() -> str:
    """Version of this package."""
    try:
        return version("aar_dist")
    except PackageNotFoundError:
        return "unknown"
