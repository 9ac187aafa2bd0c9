"""Shard sets without shards: manifests of made-up sets of any size, for what only reads the manifest.

    python benchmarks/manifests.py FOLDER --chunks 1000000       # 200 data sets, 10,000 shards; 5 s

Chunks follow the build: whole subjects in one split, a recording's chunks spread over the shards of its data set in a
drawn order, shards of equal counts, offsets as in the tar. The sizes of the data sets are log-normal.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aar_dist.base.storage import sha256
from aar_dist.shards.format import (  # fmt: skip
    FORMAT_VERSION,
    INFO,
    LABELS,
    LABELS_SCHEMA,
    MANIFEST,
    MANIFEST_SCHEMA,
    SPLITS,
    parquet_bytes,
    shard_name,
)

HEADER = 512  # of a member of a tar, and the least that one is padded to
RATES, DTYPES = (25.0, 50.0, 100.0), ("<i2", "<f4")


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the set is like."""

    chunks: int
    datasets: int = 200
    name: str = "herd"
    """Of the data sets, with a number behind it."""
    train_ratio: float = 0.5
    """Share of the subjects that train."""
    chunks_per_shard: int = 100
    sensors: tuple[str, ...] = ("acc",)
    longest_segment_s: float = 30.0
    chunk_s: float = 6000.0
    """Mean length of a chunk [s]; each is drawn from 0.1 to 1.9 of it."""
    chunks_per_recording: int = 10
    recordings_per_subject: int = 4
    seed: int = 0


def make(folder: Path, made: Made) -> Path:
    """Write manifest, labels (none) and dataset.json; the same arguments give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(folder / MANIFEST, MANIFEST_SCHEMA, compression="zstd", store_schema=False) as writer:
        for table in _tables(made):
            writer.write_table(table)
    labels = parquet_bytes(LABELS_SCHEMA.empty_table())
    (folder / LABELS).write_bytes(labels)
    info = {
        "format_version": FORMAT_VERSION,
        "identity": f"{made.seed:064x}",
        "manifest_sha256": sha256(folder / MANIFEST),
        "labels_sha256": sha256(folder / LABELS),
        "options": {"longest_segment_s": made.longest_segment_s},
        "totals": {"chunks": made.chunks},
        "skipped": [],
    }
    (folder / INFO).write_text(json.dumps(info))
    return folder


def _tables(made: Made, at_once: int = 500_000) -> Iterator[pa.Table]:
    """The manifest in pieces."""
    rng = np.random.default_rng(made.seed)
    share = rng.lognormal(0.0, 1.0, made.datasets)
    ends = np.rint(np.cumsum(share) / share.sum() * made.chunks).astype(np.int64)
    waiting: list[pa.Table] = []
    for d, n in enumerate(np.diff(ends, prepend=0).tolist()):
        subjects = -(-n // (made.chunks_per_recording * made.recordings_per_subject))
        trains = rng.permutation(subjects) < np.ceil(made.train_ratio * subjects)
        chunk = np.arange(n)
        split = trains[chunk // (made.chunks_per_recording * made.recordings_per_subject)]
        for s, chosen in zip(SPLITS, (chunk[split], chunk[~split]), strict=True):
            if len(chosen):
                waiting.append(_part(made, rng, f"{made.name}{d:04d}", d, s, rng.permutation(chosen)))
        if sum(map(len, waiting)) >= at_once:
            yield pa.concat_tables(waiting).unify_dictionaries()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).unify_dictionaries()


def _part(made: Made, rng: np.random.Generator, dataset: str, d: int, split: str, chunk: np.ndarray) -> pa.Table:
    """The rows of one data set and split, chunks as they stand in its shards."""
    n, k = len(chunk), len(made.sensors)
    rate, dtype = RATES[d % len(RATES)], DTYPES[d % len(DTYPES)]
    owned = np.maximum(1, np.rint(made.chunk_s * rate * rng.uniform(0.1, 1.9, n))).astype(np.int64)
    samples = owned + round(made.longest_segment_s * rate) - 1
    member = 2 * HEADER + -(-samples * 3 * np.dtype(dtype).itemsize // HEADER) * HEADER
    shard = np.arange(n) // made.chunks_per_shard
    total = np.cumsum(member * k + 3 * HEADER)
    first = total - (member * k + 3 * HEADER)
    base = first[shard * made.chunks_per_shard]
    size = np.append(total[made.chunks_per_shard - 1 :: made.chunks_per_shard], total[-1])[shard] - base + 2 * HEADER
    row = np.repeat(np.arange(n), k)
    sensor = np.tile(np.arange(k), n)
    recording = chunk // made.chunks_per_recording
    columns: dict[str, Any] = {
        "shard": _names(shard[row], lambda i: shard_name(dataset, split, i)),
        "shard_bytes": size[row],
        "sha256": _names(shard[row], lambda i: f"{d:032x}{i:032x}"),
        "subject": _names((recording // made.recordings_per_subject)[row], lambda i: f"s{i:05d}"),
        "recording": _names(recording[row], lambda i: f"{dataset}_s{i // made.recordings_per_subject:05d}_ds_{i}"),
        "key": pa.array([f"{dataset}_{r}-{c}" for r, c in zip(recording[row], chunk[row], strict=True)]),
        "sensor": _names(sensor, lambda i: made.sensors[i]),
        "kind": _names(sensor, lambda i: made.sensors[i][:3]),
        "offset": first[row] - base[row] + sensor * member[row] + 2 * HEADER,
        "n_samples": samples[row],
        "owned_starts": owned[row],
        "rate_hz": np.full(len(row), rate),
        "start_s": (chunk % made.chunks_per_recording)[row] * 2.0 * made.chunk_s,
        "n_valid": _lists(np.repeat(owned[row], 3)),
        "mean": _lists(rng.normal(0, 0.5, 3 * len(row))),
        "std": _lists(rng.uniform(0.1, 1.0, 3 * len(row))),
        "scale": _lists(np.full(3 * len(row), 1e-3 if dtype == "<i2" else 1.0)),
        "zero": _lists(np.zeros(3 * len(row))),
    }
    same = {"split": split, "dataset": dataset, "species": "cow", "location": "collar", "dtype": dtype}
    for name, text in {**same, "axes": "x,y,z", "units": "g"}.items():
        columns[name] = _names(np.zeros(len(row), np.int64), lambda i, text=text: text)
    return pa.table({name: columns[name] for name in MANIFEST_SCHEMA.names}, schema=MANIFEST_SCHEMA)


def _names(codes: np.ndarray, name: Any) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(
        codes.astype(np.int32), pa.array([name(i) for i in range(int(codes.max()) + 1)])
    )


def _lists(values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(np.arange(0, len(values) + 1, 3, dtype=np.int32), pa.array(values))


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--datasets", type=int, default=200)
    parser.add_argument("--chunks_per_shard", type=int, default=100)
    parser.add_argument("--train_ratio", type=float, default=0.5)
    args = vars(parser.parse_args())
    print(make(args.pop("folder"), Made(**args)))


if __name__ == "__main__":
    main()
