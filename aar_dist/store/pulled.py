"""Versions of remote stores on this machine: one download for all its processes, verified each time.

    <cache>/3f/3f9c…                      a file, by its sha256 (base/cache.py)
    <cache>/models/<hash>/config.yaml …   links to these under their names, for a manifest of this hash

A file is hashed while it comes, and again whenever a version is opened: a damaged one is brought once more.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

from aar_dist.base import storage
from aar_dist.base.cache import Blob, Cache
from aar_dist.base.errors import CheckpointError, ShardError, one_line
from aar_dist.base.locks import removed
from aar_dist.base.remote import Missing, Refused, Remote
from aar_dist.store.checkpoint import Opened, check_files
from aar_dist.store.manifest import MANIFEST, MOST_TEXT, WEIGHTS, as_bytes, parsed

MOST_WEIGHTS = 10**12
"""Bytes; of a version that does not tell."""


class Digest:
    """Takes bytes and keeps none: for a file that is only hashed."""

    def write(self, piece: bytes, /) -> int:
        """All of it."""
        return len(piece)

    def seek(self, place: int, /) -> int:
        """Nowhere."""
        return place

    def truncate(self) -> int:
        """Nothing."""
        return 0


def bring(remote: Remote, where: str, manifest: dict[str, Any], cache: Cache | None = None) -> Opened:
    """The files of a version, in the cache of this machine.

    Args:
        remote: The store.
        where: The version's folder there.
        manifest: What it says, checked.

    Raises:
        Removed: the version was taken out meanwhile.
        CheckpointError: a file is missing, or what came has another hash, three times.
        StorageError: of the server, or of the cache.
    """
    cache = cache or Cache.of()
    for last in (False, True):
        opened = _linked(remote, where, manifest, cache)
        try:
            check_files(opened.path, manifest["files"])
            return opened
        except CheckpointError:
            for blob in opened.held:
                blob.close()
            if last or not _forget_damaged(cache, manifest["files"]):
                raise
    raise AssertionError("the last try returns or raises")


def damage(remote: Remote, where: str, manifest: Mapping[str, Any]) -> str | None:
    """The first file of a version that is missing or damaged there, in words. Nothing is kept."""
    for name, expected in manifest["files"].items():
        key = f"{where}/{name}"
        try:
            size = _size(remote, where, manifest, name)
            found = remote.stream(key, Digest(), size)
        except (Missing, Refused) as error:
            return one_line(error)
        if found != expected:
            return f"{remote.at(key)} is damaged: sha256 {found[:12]}, expected {expected[:12]}"
    return None


def _linked(remote: Remote, where: str, manifest: dict[str, Any], cache: Cache) -> Opened:
    text = as_bytes(manifest)
    folder = cache.root / "models" / sha256(text).hexdigest()[:32]
    with ExitStack() as stack:
        held = [stack.enter_context(_file(remote, where, manifest, name, cache)) for name in manifest["files"]]
        with storage.one_line_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name, blob in zip(manifest["files"], held, strict=True):
                _link(folder / name, blob.path)
            if not (folder / MANIFEST).exists():
                storage.write_bytes(folder / MANIFEST, text)
        stack.pop_all()
    return Opened(folder, tuple(held))


def _file(remote: Remote, where: str, manifest: Mapping[str, Any], name: str, cache: Cache) -> Blob:
    """A file of the version, locked in the cache."""
    key = f"{where}/{name}"
    try:
        size = _size(remote, where, manifest, name)
        return cache.hold(manifest["files"][name], size, lambda part: remote.fetch(key, part, size), remote.at(key))
    except Missing:
        parsed(remote.read(f"{where}/{MANIFEST}", MOST_TEXT), remote.at(f"{where}/{MANIFEST}"))
        raise CheckpointError(f"{remote.at(key)} is missing. Publish the model again, or use another version") from None
    except ShardError as error:
        said, wrong, _ = one_line(error).partition(": wrong")
        more = ", damaged in the store. Publish the model again, or use another version" if wrong else ""
        raise CheckpointError(f"{said}{more}") from None


def _size(remote: Remote, where: str, manifest: Mapping[str, Any], name: str) -> int:
    """As the manifest tells, or the server if that does not. Raises ``CheckpointError`` for one that cannot be."""
    size = manifest.get("bytes", {}).get(name)
    size = remote.size(f"{where}/{name}") if size is None else int(size)
    if size > (MOST_WEIGHTS if name == WEIGHTS else MOST_TEXT):
        raise CheckpointError(f"{remote.at(f'{where}/{name}')} has {size} bytes, which is more than any such file")
    return size


def _link(link: Path, target: Path) -> None:
    """Let ``link`` lead to ``target``, whatever stood there; others may do the same now."""
    to = os.path.relpath(target, link.parent)
    if link.is_symlink() and os.readlink(link) == to:
        return
    made = link.with_name(f".{link.name}-{secrets.token_hex(4)}")
    os.symlink(to, made)
    os.replace(made, link)


def _forget_damaged(cache: Cache, files: Mapping[str, str]) -> bool:
    """Remove cached files that are not what they were when they came; False if there was none, or one is in use."""
    bad = [
        path for digest in files.values() if (path := cache.path(digest)).exists() and storage.sha256(path) != digest
    ]
    return bool(bad) and all(removed(path) for path in bad)
