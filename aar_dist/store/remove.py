"""Taking a version out of a store: never one that something starts from, unless it is forced.

the manifest says "removed" -> no pin has come meanwhile? -> the files are deleted; the number is spent
"""

from aar_dist.base.errors import ConfigError
from aar_dist.base.wording import some
from aar_dist.store.manifest import MANIFEST, Removed, as_bytes, spent
from aar_dist.store.pins import pins
from aar_dist.store.registry import Store
from aar_dist.store.shelf import folder_of


def remove(store: Store, name: str, number: int, *, force: bool = False, why: str = "") -> None:
    """Delete the files of a version.

    Raises:
        ConfigError: something is pinned to it.
        CheckpointError: there is no such version.
    """
    key, place = f"{folder_of(name, number)}/{MANIFEST}", store.shelf.place
    try:
        _, manifest = store.look(name, str(number))
    except Removed:
        store.shelf.clear(name, number)  # a removal may have been cut short
        raise
    if not force:
        _refuse_pinned(store, name, number)
    place.write(key, spent(name, number, why))
    if not force:
        try:
            _refuse_pinned(store, name, number)
        except ConfigError:
            place.write(key, as_bytes(manifest))
            raise
    store.shelf.clear(name, number)


def _refuse_pinned(store: Store, name: str, number: int) -> None:
    if held := pins(store.shelf.place, name, number):
        raise ConfigError(
            f"store://{name}@{number} is what {some([str(pin) for pin in held], 3)} started from; keep it, or remove "
            "it all the same with --force"
        )
