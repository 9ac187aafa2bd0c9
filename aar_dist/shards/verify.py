"""A shard set against its hashes, in a folder or at a URL.

manifest (sha256 in dataset.json), labels, identity of the rows, size, sha256 and members of every shard

A shard at a URL is looked at as it comes; nothing of it is kept.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from aar_dist.base.errors import ShardError
from aar_dist.base.progress import progress
from aar_dist.base.remote import Missing, Refused, Remote, is_url
from aar_dist.base.storage import CHUNK_BYTES
from aar_dist.shards.checks import Problem, file_problem
from aar_dist.shards.format import BUILD_FOLDER, identity_of, read_info, read_labels, read_manifest
from aar_dist.shards.members import Members, Place

COLUMNS = ["shard", "shard_bytes", "sha256", "key", "sensor", "offset", "n_samples", "dtype", "axes"]
ROWS_AT_ONCE = 10_000


@dataclass
class Shard:
    """A file of the set, as its manifest describes it."""

    size: int
    sha256: str
    arrays: list[tuple[str, Place]]
    """Member -> where its values lie."""


def verify_shards(location: Path | str) -> str:
    """Check everything; a line that says what was checked. All damage found is raised together."""
    where = str(Remote(str(location))) if is_url(location) else str(location)
    info = read_info(location)
    table = read_manifest(location, info)
    read_labels(location, info)
    rows = (row for batch in table.to_batches(ROWS_AT_ONCE) for row in batch.to_pylist())
    if (found := identity_of(rows, info["format_version"])) != info["identity"]:
        raise ShardError(
            f"{where}: the manifest's rows hash to {found[:12]}, dataset.json names {info['identity'][:12]}: "
            "a manifest of another build; copy the whole shard set again or rebuild it"
        )
    if _is_being_built(location):
        raise ShardError(f"{where}: a build is at work here or was killed; run the same build again")
    shards = shards_of(table)
    damage = []
    with progress("verifying", sum(shard.size for shard in shards.values())) as advance:
        for name, shard in shards.items():
            if problem := shard_damage(location, name, shard):
                damage.append(problem)
            advance(shard.size)
    _raise(where, damage, len(shards))
    return f"{where}: {len(shards)} shards, {table.num_rows} rows: all hashes match ({info['identity'][:12]})"


def shards_of(table: pa.Table) -> dict[str, Shard]:
    """The shards that the rows of a manifest speak of."""
    shards: dict[str, Shard] = {}
    for batch in table.select(COLUMNS).to_batches(ROWS_AT_ONCE):
        for row in batch.to_pylist():
            shard = shards.setdefault(row["shard"], Shard(row["shard_bytes"], row["sha256"], []))
            shape = (row["n_samples"], row["axes"].count(",") + 1)
            place = Place(row["offset"], shape, np.dtype(row["dtype"]).str)
            shard.arrays.append((f"{row['key']}.{row['sensor']}.npy", place))
    return shards


def shard_damage(location: Path | str, name: str, shard: Shard) -> Problem:
    """What is wrong with a shard, in a line that begins with its name; None if it is whole."""
    if not is_url(location) and (problem := file_problem(Path(location) / name, shard.size)):
        return f"{name}: {problem}"
    members = Members(shard.size)
    try:
        digest = (_read_remote if is_url(location) else _read_local)(location, name, shard, members)
    except (Missing, Refused) as error:
        return str(error).removeprefix(f"{Remote(str(location))}/")
    if digest != shard.sha256:
        return f"{name}: has sha256 {digest[:12]}, expected {shard.sha256[:12]}: damaged"
    problem = members.finish(shard.arrays)
    return f"{name}: {problem}; do not trust it" if problem else None


def _read_local(location: Path | str, name: str, shard: Shard, members: Members) -> str:
    digest = hashlib.sha256()
    with (Path(location) / name).open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
            members.write(piece)
    return digest.hexdigest()


def _read_remote(location: Path | str, name: str, shard: Shard, members: Members) -> str:
    """Twice, if the hash is wrong: bytes may have been damaged on the way."""
    remote = Remote(str(location))
    digest = remote.stream(name, members, shard.size)
    return digest if digest == shard.sha256 else remote.stream(name, members, shard.size)


def _is_being_built(location: Path | str) -> bool:
    if not is_url(location):
        return (Path(location) / BUILD_FOLDER).exists()
    try:
        return bool(Remote(str(location)).names(BUILD_FOLDER + "/"))
    except Refused:  # a web server lists nothing
        return False


def _raise(where: str, damage: Sequence[str], n_shards: int) -> None:
    if damage:
        listed = "; ".join(damage[:5]) + (f"; and {len(damage) - 5} more" if len(damage) > 5 else "")
        raise ShardError(f"{where}: {len(damage)} of {n_shards} shards: {listed}. Copy them again or rebuild the set")
