"""The shard set on disk.

    <shard set>/manifest.parquet                 one row for each (chunk, sensor), written last
                labels.parquet                   label runs: dataset, recording, start_s, stop_s, class or value
                dataset.json                     format version, build options, totals, identity
                <dataset>-<split>-000000.tar     samples <key>.<sensor>.npy …, <key>.label.npy, <key>.json

A chunk is a stretch of one recording with all its sensors. ``offset`` is the place of its samples in the tar, so
that a reader needs a memory map and a slice, and no tar parsing. ``owned_starts`` counts the segment starts that
belong to this chunk and to no other: a segment of S samples may start at min(owned_starts, n_samples - S + 1) places.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aar_dist.base.errors import ShardError

FORMAT_VERSION = 2  # 1 had no packed sensors
MANIFEST, LABELS, INFO = "manifest.parquet", "labels.parquet", "dataset.json"
BUILD_FOLDER = ".build"
SPLITS = ("train", "val")

_NAME = pa.dictionary(pa.int32(), pa.string())
MANIFEST_SCHEMA = pa.schema(
    [
        ("shard", _NAME),
        ("shard_bytes", pa.int64()),
        ("sha256", _NAME),  # of the whole shard: one hash for each byte written
        ("split", _NAME),
        ("dataset", _NAME),
        ("species", _NAME),
        ("subject", _NAME),
        ("recording", _NAME),
        ("location", _NAME),
        ("key", pa.string()),
        ("sensor", _NAME),
        ("kind", _NAME),
        ("offset", pa.int64()),  # of the first sample in the shard [bytes]
        ("n_samples", pa.int64()),
        ("owned_starts", pa.int64()),
        ("dtype", _NAME),  # NumPy's: with byte order (<i2) as recorded; int16 (-32768 is NaN) or float16 if packed
        ("axes", _NAME),  # joined by commas
        ("units", _NAME),  # of the stored values
        ("rate_hz", pa.float64()),
        ("start_s", pa.float64()),  # of the first sample in its recording
        ("scale", pa.list_(pa.float64())),  # value in the unit of the kind = stored * scale + zero, per axis
        ("zero", pa.list_(pa.float64())),
        ("n_valid", pa.list_(pa.int64())),  # owned samples that are not NaN, per axis
        ("mean", pa.list_(pa.float64())),  # of those, in the unit of the kind
        ("std", pa.list_(pa.float64())),
    ]
)
LABELS_SCHEMA = pa.schema(
    [
        ("dataset", _NAME),
        ("recording", _NAME),
        ("start_s", pa.float64()),
        ("stop_s", pa.float64()),
        ("class", _NAME),  # null where the label is a target
        ("value", pa.float64()),  # of a target; null where the label is a class
    ]
)


def shard_name(dataset: str, split: str, index: int) -> str:
    """The file name of a shard."""
    return f"{dataset}-{split}-{index:06d}.tar"


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as Parquet; the same table gives the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def identity_of(rows: list[dict[str, Any]], version: int = FORMAT_VERSION) -> str:
    """The identity of a shard set: a hash of its rows, independent of how Parquet stores them."""
    digest = hashlib.sha256(f"aar_dist shard set {version}\n".encode())
    for row in rows:
        digest.update(json.dumps([row[name] for name in MANIFEST_SCHEMA.names]).encode())
    return digest.hexdigest()


def read_info(folder: Path) -> dict[str, Any]:
    """The dataset.json of a finished shard set."""
    if not folder.is_dir():
        raise ShardError(f"{folder}: no such folder, expected a shard set; build one with shards/build.py")
    if not (folder / MANIFEST).is_file():
        hint = (
            "its build did not finish: run the same build again"
            if (folder / BUILD_FOLDER).exists()
            else ("not a shard set: build one with shards/build.py")
        )
        raise ShardError(f"{folder}: {MANIFEST} is missing; {hint}")
    try:
        info: dict[str, Any] = json.loads((folder / INFO).read_text())
        version = info["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShardError(
            f"{folder / INFO}: cannot be read ({type(error).__name__}); build the shard set again"
        ) from error
    if version not in range(1, FORMAT_VERSION + 1):
        raise ShardError(f"{folder / INFO}: format version {version}, this program reads 1 to {FORMAT_VERSION}")
    return info


def read_manifest(folder: Path, info: dict[str, Any], columns: list[str] | None = None) -> pa.Table:
    """The manifest, checked against the hash in dataset.json."""
    return _read_checked(folder / MANIFEST, info["manifest_sha256"], MANIFEST_SCHEMA, columns)


def read_labels(folder: Path, info: dict[str, Any]) -> pa.Table:
    """The label runs, checked against the hash in dataset.json."""
    return _read_checked(folder / LABELS, info["labels_sha256"], LABELS_SCHEMA, None)


def _read_checked(path: Path, sha256: str, schema: pa.Schema, columns: list[str] | None) -> pa.Table:
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ShardError(
            f"{path}: sha256 {found[:12]}, but {INFO} names {sha256[:12]}: it is damaged or of another build; "
            "copy the whole shard set again or rebuild it"
        )
    names = columns or schema.names
    lacking = [name for name in names if name not in pq.read_schema(pa.BufferReader(data)).names]
    if lacking:
        raise ShardError(f"{path}: no column {lacking[0]}: an earlier version built it; build the shard set again")
    dictionaries = [n for n in names if pa.types.is_dictionary(schema.field(n).type)]
    return pq.read_table(pa.BufferReader(data), columns=names, read_dictionary=dictionaries)
