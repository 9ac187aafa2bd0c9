"""A shard set against its hashes.

manifest (sha256 in dataset.json), labels, identity of the rows, size and sha256 of every shard
"""

from collections.abc import Sequence
from pathlib import Path

from aar_dist.base import storage
from aar_dist.base.errors import ShardError
from aar_dist.base.progress import progress
from aar_dist.shards.format import BUILD_FOLDER, identity_of, read_info, read_labels, read_manifest
from aar_dist.shards.summary import shard_set_files


def verify_shards(folder: Path) -> str:
    """Check everything; a line that says what was checked. All damage found is raised together."""
    info = read_info(folder)
    table = read_manifest(folder, info)
    read_labels(folder, info)
    if (found := identity_of(table.to_pylist(), info["format_version"])) != info["identity"]:
        raise ShardError(
            f"{folder}: the manifest's rows hash to {found[:12]}, dataset.json names {info['identity'][:12]}: "
            "a manifest of another build; copy the whole shard set again or rebuild it"
        )
    if (folder / BUILD_FOLDER).exists():
        raise ShardError(f"{folder}: a build is at work here or was killed; run the same build again")
    files = shard_set_files(folder)
    with progress("verifying", sum(size for size, _ in files.values())) as advance:
        damage = []
        for name, (size, digest) in files.items():
            damage += shard_damage(folder / name, size, digest)
            advance(size)
    _raise(folder, damage, len(files))
    return f"{folder}: {len(files)} shards, {table.num_rows} rows: all hashes match ({info['identity'][:12]})"


def shard_damage(path: Path, size: int, sha256: str | None) -> list[str]:
    """What is wrong with a shard file: nothing, or one line."""
    if not path.is_file():
        return [f"{path.name} is missing"]
    if (found := path.stat().st_size) != size:
        return [f"{path.name} has {found} bytes, expected {size}: cut short or of another build"]
    if sha256 is not None and (digest := storage.sha256(path)) != sha256:
        return [f"{path.name} has sha256 {digest[:12]}, expected {sha256[:12]}: damaged"]
    return []


def _raise(folder: Path, damage: Sequence[str], n_shards: int) -> None:
    if damage:
        listed = "; ".join(damage[:5]) + (f"; and {len(damage) - 5} more" if len(damage) > 5 else "")
        raise ShardError(f"{folder}: {len(damage)} of {n_shards} shards: {listed}. Copy them again or rebuild the set")
