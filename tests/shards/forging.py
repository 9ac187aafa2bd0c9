"""Shard sets with something wrong in them, and hashes that fit."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aar_dist.shards.format import INFO, LABELS, LABELS_SCHEMA, MANIFEST, MANIFEST_SCHEMA, identity_of
from aar_dist.shards.tar import TarWriter

Rows = list[dict[str, Any]]
Member = tuple[tarfile.TarInfo, bytes]


class Forged:
    """A copy of a shard set, to be changed."""

    def __init__(self, original: Path, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for path in original.iterdir():
            os.link(path, folder / path.name)
        self.info: dict[str, Any] = json.loads((folder / INFO).read_text())
        self.rows: Rows = pq.read_table(folder / MANIFEST).to_pylist()

    @property
    def shard(self) -> str:
        """One of its shards, of a training subject."""
        return self.rows[0]["shard"]

    def put(self, name: str, data: bytes) -> None:
        (self.folder / name).unlink()
        (self.folder / name).write_bytes(data)

    def sign(self, name: str, data: bytes) -> None:
        """Write the manifest or the labels, and dataset.json with their hash."""
        self.put(name, data)
        self.info[f"{name.partition('.')[0]}_sha256"] = hashlib.sha256(data).hexdigest()
        self.put(INFO, json.dumps(self.info).encode())

    def with_rows(self, change: Callable[[dict[str, Any]], object]) -> Path:
        """Change the first row."""
        change(self.rows[0])
        self.info["identity"] = identity_of(self.rows)
        self.sign(MANIFEST, parquet(pa.Table.from_pylist(self.rows, MANIFEST_SCHEMA)))
        return self.folder

    def with_table(self, table: pa.Table) -> Path:
        self.sign(MANIFEST, parquet(table))
        return self.folder

    def with_runs(self, *runs: dict[str, Any]) -> Path:
        self.sign(LABELS, parquet(pa.Table.from_pylist(list(runs), LABELS_SCHEMA)))
        return self.folder

    def with_shard(self, data: bytes) -> Path:
        """Another shard, whose size and hash the manifest tells."""
        self.put(self.shard, data)
        for row in self.rows:
            if row["shard"] == self.shard:
                row |= {"shard_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return self.with_rows(lambda row: None)

    def with_member(self, name: str, data: bytes = b"", **header: object) -> Path:
        """One more member behind the others. ``header``: attributes of its header."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for attribute, value in header.items():
            setattr(info, attribute, value)
        member = info.tobuf(tarfile.GNU_FORMAT) + data + b"\0" * (-len(data) % 512)
        return self.with_shard((self.folder / self.shard).read_bytes()[:-1024] + member + b"\0" * 1024)


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    return sink.getvalue()


def npy(values: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


def small_tar(path: Path, n: int = 3) -> bytes:
    """A shard of a few small members."""
    with TarWriter(path) as tar:
        for i in range(n):
            tar.add_array(f"k-{i}.acc.npy", np.arange(3 * i, dtype="<f4").reshape(-1, 3))
            tar.add(f"k-{i}.json", b"{}" * i)
        tar.add(f"{'long' * 50}.json", b"")
        tar.finish()
    return path.read_bytes()
