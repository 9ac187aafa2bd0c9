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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aar_dist.base.errors import ShardError
from aar_dist.base.remote import Missing, Remote, is_url
from aar_dist.base.storage import CHUNK_BYTES
from aar_dist.shards.checks import (
    PLACES,
    check_column,
    check_extent,
    check_file,
    check_info,
    check_pages,
    check_places,
    check_runs,
    refuse,
)
from aar_dist.shards.pages import page_sizes

FORMAT_VERSION = 2  # 1 had no packed sensors
MANIFEST, LABELS, INFO = "manifest.parquet", "labels.parquet", "dataset.json"
BUILD_FOLDER = ".build"
SPLITS = ("train", "val")
MOST_INFO, MOST_METADATA = 16_000_000, 2_000_000_000  # bytes of dataset.json; of the manifest, of the labels
SPARE = 100_000  # bytes that a Parquet file is taken to be larger than it is: small ones compress better

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


def identity_of(rows: Iterable[dict[str, Any]], version: int = FORMAT_VERSION) -> str:
    """The identity of a shard set: a hash of its rows, independent of how Parquet stores them."""
    digest = hashlib.sha256(f"aar_dist shard set {version}\n".encode())
    for row in rows:
        digest.update(json.dumps([row[name] for name in MANIFEST_SCHEMA.names]).encode())
    return digest.hexdigest()


class Keeper(Protocol):
    """Keeps small files by their hash, so that each is fetched once (``base.cache.Cache``)."""

    def small(self, sha256: str, read: Callable[[], bytes], name: str) -> bytes: ...


def read_info(location: Path | str) -> dict[str, Any]:
    """The dataset.json of a finished shard set, in a folder or at a URL."""
    if not is_url(location):
        _check_finished(Path(location))
    where = _at(location, INFO)
    try:
        info: dict[str, Any] = json.loads(_read_small(location, INFO))
        version = info["format_version"]
    except Missing:
        raise ShardError(f"{where}: not there: not a shard set, or its build did not finish") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ShardError(f"{where}: cannot be read ({type(error).__name__}); build the shard set again") from error
    if version not in range(1, FORMAT_VERSION + 1):
        raise ShardError(f"{where}: format version {version!r}, this program reads 1 to {FORMAT_VERSION}")
    refuse(where, check_info(info))
    return info


def _check_finished(folder: Path) -> None:
    if not folder.is_dir():
        raise ShardError(f"{folder}: no such folder, expected a shard set; build one with shards/build.py")
    if not (folder / MANIFEST).is_file():
        hint = (
            "its build did not finish: run the same build again"
            if (folder / BUILD_FOLDER).exists()
            else ("not a shard set: build one with shards/build.py")
        )
        raise ShardError(f"{folder}: {MANIFEST} is missing; {hint}")


def _at(location: Path | str, name: str) -> str:
    return Remote(str(location)).at(name) if is_url(location) else str(Path(location) / name)


def _read_small(location: Path | str, name: str) -> bytes:
    """dataset.json, whole. Raises ``ShardError`` if it is too large to be one."""
    if is_url(location):
        return Remote(str(location)).read(name, MOST_INFO)
    path = Path(location) / name
    check_file(path)
    with path.open("rb") as file:
        data = file.read(MOST_INFO + 1)
    refuse(path, f"larger than {MOST_INFO} bytes" if len(data) > MOST_INFO else None)
    return data


def metadata_file(location: Path | str, name: str, sha256: str, cache: Keeper | None = None) -> pa.NativeFile:
    """The manifest or the labels, open, with the hash that they should have.

    Those at a URL are read into memory, out of the cache where there is one.
    """
    if is_url(location):
        file = pa.BufferReader(_read_remote(Remote(str(location)), name, sha256, cache))
    else:
        check_file(Path(location) / name)
        file = pa.OSFile(str(Path(location) / name))  # one descriptor: what was hashed is what is read
    digest = hashlib.sha256()
    while piece := file.read(CHUNK_BYTES):
        digest.update(piece)
    if (found := digest.hexdigest()) != sha256:
        raise ShardError(
            f"{_at(location, name)}: sha256 {found[:12]}, but {INFO} names {sha256[:12]}: it is damaged or of another "
            "build; copy the whole shard set again or rebuild it"
        )
    return file


def _read_remote(remote: Remote, name: str, sha256: str, cache: Keeper | None) -> bytes:
    def read() -> bytes:
        return remote.read(name, MOST_METADATA)

    try:
        return cache.small(sha256, read, remote.at(name)) if cache else read()
    except Missing:
        raise ShardError(f"{remote.at(name)}: not there; if its build was killed, run the same build again") from None


class CheckedParquet:
    """A Parquet file that has the hash it should have, and columns that say what they may.

    Columns are decoded, and checked, when they are asked for: all of a million rows at once are 200 MB.
    """

    def __init__(self, where: str, file: pa.NativeFile, schema: pa.Schema) -> None:
        self._where, self._schema = where, schema
        self._n_axes: NDArray[Any] | None = None
        self._n_bytes = file.size() + SPARE
        with self._own_words():
            metadata = pq.read_metadata(file)
            refuse(where, check_extent(metadata, self._n_bytes))
            refuse(where, check_pages(page_sizes(file, metadata), self._n_bytes))
            there = {metadata.schema.column(i).path for i in range(metadata.num_columns)}
            # Keys too are read coded: a long one that a bomb repeats would be spelt out in every row.
            coded = [f.name for f in schema if f.name in there and (f.name == "key" or pa.types.is_dictionary(f.type))]
            self._file = pq.ParquetFile(file, metadata=metadata, read_dictionary=coded)
            arrow = self._file.schema_arrow
            self._types = dict(zip(arrow.names, arrow.types, strict=True))

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        n: int = self._file.metadata.num_rows
        return n

    def check_places(self) -> None:
        """Refuse a manifest whose rows lie outside their shards."""
        problem, n_axes = check_places(self.read(PLACES))
        refuse(self._where, problem)
        self._n_axes = n_axes.astype(np.int16)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """These columns, or all. Raises ``ShardError``."""
        names = list(columns or self._schema.names)
        for name in names:
            self._check_type(name)
        with self._own_words():
            table = self._file.read(columns=names, use_threads=False)  # threads keep 20 MB for themselves
            for place, name in enumerate(names):
                refuse(self._where, check_column(name, table[name], self._n_axes))
                if name == "key":
                    table = table.set_column(place, name, self._spelt_out(table[name]))
        return table

    def _spelt_out(self, keys: pa.ChunkedArray) -> pa.ChunkedArray:
        """Keys as text, of which each chunk has its own."""
        n_bytes = sum(pc.sum(pc.binary_length(c.dictionary).take(c.indices)).as_py() or 0 for c in keys.chunks)
        refuse(self._where, f"its keys take {n_bytes} bytes: a bomb" if n_bytes > 10 * self._n_bytes else None)
        return keys.cast(pa.string())

    def pieces(self, column: str, n_rows: int = 1 << 17) -> Iterator[pa.ChunkedArray]:
        """A column in stretches of rows, one in memory at a time. Raises ``ShardError``."""
        self._check_type(column)
        row = 0
        with self._own_words():
            for batch in self._file.iter_batches(n_rows, columns=[column]):
                piece = pa.chunked_array([batch.column(0)])
                n_axes = None if self._n_axes is None else self._n_axes[row : row + len(piece)]
                refuse(self._where, check_column(column, piece, n_axes))
                row += len(piece)
                yield piece

    def _check_type(self, name: str) -> None:
        if name not in self._types:
            raise ShardError(f"{self._where}: no column {name}: an earlier version built it; build the shard set again")
        expected = _NAME if name == "key" else self._schema.field(name).type
        if not self._types[name].equals(expected):
            refuse(self._where, f"column {name} holds {self._types[name]}, expected {expected}")

    @contextmanager
    def _own_words(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, MemoryError, ValueError, KeyError) as error:
            raise ShardError(
                f"{self._where}: cannot be read ({type(error).__name__}); build the shard set again"
            ) from error


def open_manifest(location: Path | str, info: dict[str, Any], cache: Keeper | None = None) -> CheckedParquet:
    """The manifest, checked against the hash in dataset.json; every row lies in its shard."""
    file = metadata_file(location, MANIFEST, info["manifest_sha256"], cache)
    manifest = CheckedParquet(_at(location, MANIFEST), file, MANIFEST_SCHEMA)
    manifest.check_places()
    return manifest


def read_manifest(
    location: Path | str, info: dict[str, Any], columns: list[str] | None = None, cache: Keeper | None = None
) -> pa.Table:
    """Columns of the manifest, checked as :func:`open_manifest` does."""
    return open_manifest(location, info, cache).read(columns)


def read_labels(location: Path | str, info: dict[str, Any], cache: Keeper | None = None) -> pa.Table:
    """The label runs, checked against the hash in dataset.json."""
    file = metadata_file(location, LABELS, info["labels_sha256"], cache)
    labels = CheckedParquet(_at(location, LABELS), file, LABELS_SCHEMA).read()
    refuse(_at(location, LABELS), check_runs(labels))
    return labels
