"""Writing values into the bytes of a shard set that was built whole."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from aar_dist.shards.format import MANIFEST


def damaged(shards: Path, to: Path, *stretches: tuple[str, float, float, float]) -> Path:
    """A copy of a shard set in which each (recording, first second, last second, value) has been written over the
    float32 samples of ``acc`` on all axes."""
    shutil.copytree(shards, to)
    rows = [row for row in pq.read_table(to / MANIFEST).to_pylist() if row["sensor"] == "acc"]
    for recording, start_s, stop_s, value in stretches:
        chunks = [row for row in rows if row["recording"] == recording]
        assert chunks, f"{recording} is none of {sorted({row['recording'] for row in rows})}"
        written = sum(_write(to, row, start_s, stop_s, value) for row in chunks)
        assert written, f"{recording} has no samples from {start_s} to {stop_s} s"
    return to


def _write(folder: Path, row: dict, start_s: float, stop_s: float, value: float) -> int:
    """Samples written in one chunk."""
    assert row["dtype"] == "<f4", row["dtype"]
    first = max(0, round((start_s - row["start_s"]) * row["rate_hz"]))
    last = min(row["n_samples"], round((stop_s - row["start_s"]) * row["rate_hz"]))
    n_axes = len(row["axes"].split(","))
    with open(folder / row["shard"], "r+b") as file:
        file.seek(row["offset"] + first * n_axes * 4)
        file.write(np.full(max(0, last - first) * n_axes, value, "<f4").tobytes())
    return max(0, last - first)
