"""``aar-dist embed``: what a stored model makes of every window, as Parquet.

aar-dist embed store://aar@latest shard_set embeddings.parquet --store run/store
aar-dist embed run/store/models/aar/3 shard_set embeddings.parquet --hop_s 5 --all

Columns: dataset, subject (``herd/12``), recording, sensor (``acc+gyr`` of several drawn together), start_s, stop_s,
label (null: none), embedding: the mean over the tokens that stand for recorded samples, float32. Windows are those that
carry a label; all of a plain grid where the set has no labels, or with --all. One without any sample is left out.
`aar-dist report embeddings.parquet` draws their map.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from aar_dist.base import storage
from aar_dist.base.cli import Parser
from aar_dist.base.errors import ConfigError, user_entry
from aar_dist.base.hashing import hash_np, word
from aar_dist.base.progress import progress
from aar_dist.evaluation.arrays import batches_once
from aar_dist.evaluation.device import device_of
from aar_dist.models.backbone import Backbone
from aar_dist.objectives.pooling import average, grouped_tokens
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.store.registry import resolve
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.config import DataConfig
from aar_dist.stream.source import Source
from aar_dist.stream.windows import Names, WindowConfig, WindowTable, open_windows, window_stream
from aar_dist.training.finetuning.pretrained import FOLLOWED

BATCH = 512
DRAWN = word("embedded windows")


def stream_of(checkpoint: Checkpoint, shards: Sequence[str]) -> DataConfig:
    """Segments of these shards as the model was given them in training: length, sensors, normalisation."""
    trained = checkpoint.config()["data"]
    return DataConfig(shards=list(shards), **{key: trained[key] for key in FOLLOWED if key in trained})


def embed(
    checkpoint: Checkpoint,
    shards: Sequence[str],
    out: Path,
    *,
    data: DataConfig | None = None,
    windows: WindowConfig | None = None,
    everything: bool = False,
    limit: int | None = None,
    batch_size: int = BATCH,
    device: torch.device | str = "cpu",
    rename: Mapping[str, str] | None = None,
) -> int:
    """Write the embeddings of all windows, whole or not at all; returns how many.

    Args:
        checkpoint: A stored model, pretrained or fine-tuned: its backbone is what embeds.
        shards: Shard sets with the sensors that the model knows.
        out: The Parquet file; it must not exist.
        data: How windows are cut and normalised; None for the way of the model's training.
        windows: Grid and labels.
        everything: Windows without a label too.
        limit: At most so many windows, drawn evenly by their place.
        batch_size: Windows at once.
        device: Where to compute.
        rename: Names of these channels -> their names in the model, where it has embeddings for each.
    """
    if out.exists():
        raise ConfigError(f"{out}: exists; remove it, or give another name")
    data = data or stream_of(checkpoint, shards)
    source, table = open_windows(data, windows or WindowConfig(), unlabelled=True)
    table = _chosen(table, everything=everything, limit=limit)
    backbone = checkpoint.objective().backbone.to(device)
    backbone.rename(rename or {})
    schema = _schema(backbone.d_embedding, table, {"model": checkpoint.reference, "shards": source.identity})
    sensors = _sensors(source, table)
    with window_stream(source, table, data, shuffle=False) as stream:
        vectors = embeddings(backbone, (b.to(device) for b in batches_once(stream, batch_size)))
        return _write(out, table, sensors, schema, vectors)


def _chosen(table: WindowTable, *, everything: bool, limit: int | None) -> WindowTable:
    """The windows with a label, or all of them where none has one; of these at most so many."""
    carries = table.label >= 0 if table.classes is not None else ~np.isnan(table.label)
    if carries.any() and not everything:
        table = table.select(carries)
    return drawn(table, limit) if limit else table


def drawn(table: WindowTable, limit: int) -> WindowTable:
    """At most so many of the windows, drawn evenly, in their order."""
    if len(table) <= limit:
        return table
    return table.select(np.sort(np.argsort(hash_np(DRAWN, np.arange(len(table))), kind="stable")[:limit]))


def _sensors(source: Source, table: WindowTable) -> Names:
    """(n,) what each window was recorded with."""
    parts, which = np.unique(source.parts[table.item], axis=0, return_inverse=True)
    names = ["+".join(source.origin["sensor"][row[row >= 0]]) for row in parts]
    return np.array(names)[which.reshape(-1)]


def _write(out: Path, table: WindowTable, sensors: Names, schema: pa.Schema, vectors: Iterator[torch.Tensor]) -> int:
    """A row for each window that holds a sample, as its vector comes; whole or not at all. Returns how many."""
    staging, done, written = storage.staging_name(out), 0, 0
    with storage.one_line_errors(out, staging):
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            pq.ParquetWriter(staging, schema, compression="zstd") as writer,
            progress(f"embedding {len(table)} windows", len(table)) as advance,
        ):
            for some in vectors:
                # Only where there is no token to take the mean of, all of it is exactly 0.
                place = done + np.flatnonzero(some.any(1).numpy())
                writer.write_table(_table(table.select(place), sensors[place], some[place - done].numpy(), schema))
                done, written = done + len(some), written + len(place)
                advance(len(some))
        storage.publish(staging, out)
    return written


def embeddings(backbone: Backbone, batches: Iterator[SegmentBatch]) -> Iterator[torch.Tensor]:
    """:func:`embedding` of each batch, on the CPU."""
    with torch.inference_mode():
        for batch in batches:
            yield embedding(backbone, batch).cpu()


def embedding(backbone: Backbone, batch: SegmentBatch) -> torch.Tensor:
    """(B, d) float32: the mean over the valid tokens of all channels, 0 where there is none."""
    tokens, valid = grouped_tokens(backbone, batch)
    return average(tokens.flatten(1, 2), valid.flatten(1, 2)).float()


def _schema(width: int, table: WindowTable, about: dict[str, str]) -> pa.Schema:
    label = pa.string() if table.classes is not None else pa.float32()
    names = [(name, pa.string()) for name in ("dataset", "subject", "recording", "sensor")]
    times = [("start_s", pa.float64()), ("stop_s", pa.float64())]
    return pa.schema([*names, *times, ("label", label), ("embedding", pa.list_(pa.float32(), width))], metadata=about)


def _table(rows: WindowTable, sensors: Names, vectors: np.ndarray, schema: pa.Schema) -> pa.Table:
    classes = rows.classes
    labels: list[Any] = [
        (classes[k] if k >= 0 else None) if classes is not None else (None if np.isnan(k) else float(k))
        for k in rows.label
    ]
    told = ("dataset", "subject", "recording", "start_s", "stop_s")
    columns = {name: getattr(rows, name).tolist() for name in told} | {"sensor": sensors.tolist(), "label": labels}
    arrays = [pa.array(columns[field.name], field.type) for field in schema if field.name in columns]
    vector = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), vectors.shape[1])
    return pa.Table.from_arrays([*arrays, vector], schema=schema)


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Embed every window of shard sets."""
    parser = Parser(__doc__, prog="aar-dist embed")
    parser.add_argument("checkpoint", help="a stored model: store://name@version, or folder or URL of a version")
    parser.add_argument("shards", nargs="+", help="shard sets")
    parser.add_argument("out", type=Path, help="the Parquet file to write")
    parser.add_argument("--store", help="folder or URL of the store that store:// speaks of (AAR_DIST_STORE)")
    parser.add_argument("--hop_s", type=float, help="from one window to the next [s] (default: their length)")
    parser.add_argument("--min_share", type=float, default=1.0, help="share of a window its label covers (%(default)s)")
    parser.add_argument("--all", action="store_true", help="windows without a label too")
    parser.add_argument("--limit", type=int, help="at most so many windows, drawn evenly (default: all)")
    parser.add_argument("--batch_size", type=int, default=BATCH, help="windows at once (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {args.limit}")
    if args.batch_size < 1:
        raise ConfigError(f"--batch_size must be at least 1, got {args.batch_size}")
    n = embed(
        resolve(args.checkpoint, args.store),
        args.shards,
        args.out,
        windows=WindowConfig(hop_s=args.hop_s, min_share=args.min_share),
        everything=args.all,
        limit=args.limit,
        batch_size=args.batch_size,
        device=device_of(args.device),
    )
    print(f"{args.out}: {n} windows")
