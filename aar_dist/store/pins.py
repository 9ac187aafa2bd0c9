"""What starts from a version, noted beside it: a version with a pin is not removed.

    models/<name>/pins/<number>/<hash>.json     {"host", "folder", "at"}

A pin is written, then the version is looked at again; who removes a version marks it, then looks for pins again. So of
a pin and a removal at the same moment one gives way.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from aar_dist.base.errors import CheckpointError, StorageError
from aar_dist.base.local import Place
from aar_dist.base.storage import json_bytes
from aar_dist.store.manifest import ADDRESS, now
from aar_dist.store.registry import SCHEME, Store, named, store_of
from aar_dist.store.shelf import folder_of


@dataclass(frozen=True)
class Pin:
    """Who starts from a version."""

    host: str
    folder: str
    """Of the run, or of the folds."""
    at: str

    def __str__(self) -> str:
        return f"{self.host}:{self.folder} ({self.at[:10]})"

    @property
    def holds(self) -> bool:
        """False once the folder is gone, as far as this machine can see."""
        return self.host != socket.gethostname() or Path(self.folder).exists()


def pin(reference: str, store: str | Path | None, folder: Path) -> None:
    """Note that a run in ``folder`` starts from this version, where the store can be written.

    Args:
        reference: ``store://name@3``, or folder or URL of a version.
        store: The one that ``store://`` speaks of.

    Raises:
        CheckpointError: the version is being removed.
    """
    if found := _version(reference, store):
        root, name, number = found
        with suppress(StorageError):
            _write(root.shelf.place, _folder(name, number), Pin(socket.gethostname(), str(folder), now()))
        root.look(name, str(number))


def pins(place: Place, name: str, number: int) -> list[Pin]:
    """The pins of a version that still hold."""
    return [pin for pin in _read(place, _folder(name, number)) if pin.holds]


def _version(reference: str, store: str | Path | None) -> tuple[Store, str, int] | None:
    """Which version of which store is meant; None for a folder that is in none."""
    if reference.startswith(SCHEME):
        name, which = named(reference)
        return None if which == "latest" else (Store(store_of(store, reference)), name, int(which))
    match = ADDRESS.fullmatch(reference)
    return (Store(match["store"]), match["name"], int(match["version"])) if match else None


def _folder(name: str, number: int) -> str:
    return f"{folder_of(name)}/pins/{number}"


def _write(place: Place, folder: str, pin: Pin) -> None:
    key = sha256(f"{pin.host}\n{pin.folder}".encode()).hexdigest()[:16]
    if not place.exists(f"{folder}/{key}.json"):
        place.write(f"{folder}/{key}.json", json_bytes(asdict(pin)))


def _read(place: Place, folder: str) -> Iterator[Pin]:
    for key in place.names(f"{folder}/"):
        with suppress(ValueError, TypeError, KeyError, CheckpointError):
            told = json.loads(place.read(key, 10_000))
            yield Pin(*(str(told[name]) for name in ("host", "folder", "at")))
