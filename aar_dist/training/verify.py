"""``aar-dist verify``: a shard set, a run's checkpoint or a stored model against its hashes."""

from collections.abc import Sequence
from pathlib import Path

from aar_dist.base import storage
from aar_dist.base.cli import Parser
from aar_dist.base.errors import CheckpointError, ShardError, user_entry
from aar_dist.base.remote import is_url
from aar_dist.shards.format import MANIFEST
from aar_dist.store.manifest import ADDRESS


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Check each path; the first damaged one is an error."""
    parser = Parser(__doc__, prog="aar-dist verify")
    parser.add_argument(
        "paths",
        nargs="+",
        help="shard sets and stored models (folders, URLs, store://name@version), checkpoints, run directories",
    )
    parser.add_argument("--store", help="folder or URL of the store that store:// speaks of (AAR_DIST_STORE)")
    args = parser.parse_args(argv)
    for path in args.paths:
        print(verify(path, args.store))


def verify(path: str, store: str | None = None) -> str:
    """What was found whole, in a line. Raises ``ShardError`` or ``CheckpointError``."""
    if is_url(path):
        return _model(path, store) if ADDRESS.fullmatch(path) else _shards(path)
    folder = Path(path)
    if path.startswith("store://") or (folder / "model.safetensors").exists():
        return _model(path, store)
    if (folder / "checkpoints").is_dir():
        return _checkpoints(sorted((folder / "checkpoints").glob("step_*")), folder)
    if folder.name.startswith("step_"):
        return _checkpoints([folder], folder)
    if folder.is_dir() and not any(folder.glob("*.parquet")) and not (folder / ".build").exists():
        raise ShardError(f"{folder}: no {MANIFEST}, no checkpoint, no model; nothing here to verify")
    return _shards(folder)


def _shards(location: Path | str) -> str:
    from aar_dist.shards.verify import verify_shards

    return verify_shards(location)


def _model(path: str, store: str | None) -> str:
    from aar_dist.store.registry import resolve

    checkpoint = resolve(path, store)
    return f"{checkpoint.where}: {checkpoint.reference}, {len(checkpoint.manifest['files'])} files: all hashes match"


def _checkpoints(folders: Sequence[Path], where: Path) -> str:
    from aar_dist.training.checkpoints import COMPLETE, read

    whole = [folder for folder in folders if (folder / COMPLETE).is_file()]
    if not whole:
        raise CheckpointError(f"{where}: no complete checkpoint")
    for folder in whole:
        if problem := storage.damage(folder, read(folder).files):
            raise CheckpointError(f"{problem}; remove {folder} and resume: the run goes back to the one before it")
    return f"{where}: {len(whole)} checkpoints, newest {whole[-1].name}: all hashes match"
