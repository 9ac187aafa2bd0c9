"""``aar-dist store pull`` and ``push``: from a store into a folder, and from a run or a folder into a store."""

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aar_dist.base import storage
from aar_dist.base.errors import CheckpointError, ConfigError, StorageError, one_line
from aar_dist.base.remote import is_url
from aar_dist.store.checkpoint import Checkpoint, verified
from aar_dist.store.commands.options import opened, parser, version_of
from aar_dist.store.manifest import CARD, MANIFEST, NAME, as_bytes
from aar_dist.store.registry import SCHEME, Store, resolve

OWN = ("name", "version", "published", "files", "bytes")
"""What a manifest says of its own place, and no other version's may."""


def pull(argv: Sequence[str]) -> None:
    """Copy a version into a folder."""
    options = parser("pull", "Copy a version into a folder, whole and verified, or not at all.")
    options.add_argument("model", help="NAME or NAME@3")
    options.add_argument("folder", nargs="?", type=Path, help="a new folder (default: NAME-3)")
    args = options.parse_args(argv)
    store = opened(args.store)
    checkpoint = store.get(*version_of(args.model))
    folder = args.folder or Path(f"{checkpoint.name}-{checkpoint.version}")
    there = copy_to(checkpoint, folder)
    print(f"{folder}: {checkpoint.reference} of {store}, {'there already' if there else 'copied'}, all hashes match")


def copy_to(checkpoint: Checkpoint, folder: Path) -> bool:
    """Write the files of a version; True if they were there before. Raises ``StorageError`` if other things are."""
    if folder.exists():
        if not (folder / MANIFEST).exists() or verified(folder).manifest != checkpoint.manifest:
            raise StorageError(f"{folder} exists and is not {checkpoint.reference}; choose another folder")
        return True
    staging = storage.staging_name(folder)
    with storage.one_line_errors(folder, staging):
        staging.mkdir(parents=True)
        copy_files(checkpoint, staging)
        (staging / MANIFEST).write_bytes(as_bytes(checkpoint.manifest))
        verified(staging)
        storage.publish(staging, folder)
    return False


def copy_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Those that the manifest lists."""
    for name in checkpoint.manifest["files"]:
        shutil.copyfile(checkpoint.path / name, folder / name)


def push(argv: Sequence[str]) -> None:
    """Publish what was trained elsewhere."""
    options = parser("push", "Publish a finished run's model, or a version of another store, as a new version here.")
    options.add_argument("source", help="a run directory, a version's folder or URL, or store://NAME@3 with --from")
    options.add_argument("--name", help="of the model here (default: the one it has)")
    options.add_argument("--from", dest="origin", help="the store that a SOURCE of store:// speaks of")
    args = options.parse_args(argv)
    store = opened(args.store)
    checkpoint = source_of(args.source, args.origin)
    name = args.name or checkpoint.name
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name {name}: expected letters, digits, '-', '_' and '.'")
    store.shelf.check(name)
    if known := twin(store, name, checkpoint):
        print(f"{known} of {store} holds the same files already")
        return
    made = store.add(name, partial(_renamed, checkpoint, name), about_of(checkpoint))
    print(f"{made.reference} of {store}: {checkpoint.reference} from {checkpoint.where}")


def source_of(source: str, origin: str | None) -> Checkpoint:
    """The version that is meant, verified. Raises ``CheckpointError``, ``ConfigError``."""
    if source.startswith(SCHEME) or is_url(source):
        return resolve(source, origin)
    folder = Path(source)
    if (folder / MANIFEST).is_file():
        return verified(folder)
    if not (folder / "finished").is_file():
        raise ConfigError(
            f"{folder}: neither a finished run nor the folder of a version ({MANIFEST}); give one of these"
        )
    try:
        said = json.loads((folder / "finished").read_text())
        reference, where = str(said["model"]), str(said["store"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'finished'} cannot be read: {one_line(error)}") from None
    moved = folder / "store"  # the run may have been copied to this place
    return resolve(reference, where if is_url(where) or Path(where).is_dir() or not moved.is_dir() else moved)


def twin(store: Store, name: str, checkpoint: Checkpoint) -> str | None:
    """The version that holds these very files, if there is one."""
    files = {key: value for key, value in checkpoint.manifest["files"].items() if key != CARD}
    for number, manifest in store.newest_first(name):
        if {key: value for key, value in manifest["files"].items() if key != CARD} == files:
            return f"{SCHEME}{name}@{number}"
    return None


def about_of(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """What the new manifest keeps of the old one, and where it is from."""
    kept = {key: value for key, value in checkpoint.manifest.items() if key not in OWN}
    return {"pushed_from": checkpoint.reference, **kept}


def _renamed(checkpoint: Checkpoint, name: str, folder: Path) -> None:
    """The files, and a card that tells the name under which they are found here."""
    copy_files(checkpoint, folder)
    if name != checkpoint.name:
        text = (folder / CARD).read_text()
        text = text.replace(f"{SCHEME}{checkpoint.name}@", f"{SCHEME}{name}@")
        (folder / CARD).write_text(text.replace(f"# {checkpoint.name}\n", f"# {name}\n", 1))
