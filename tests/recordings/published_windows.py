"""What a converted set gives a model: shards, windows, batches."""

from pathlib import Path

from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.config import DataConfig
from aar_dist.stream.windows import WindowConfig, WindowTable, open_windows, window_stream


def windows_of(
    folder: Path, out: Path, seconds: float, hop_s: float | None = None, **data
) -> tuple[WindowTable, list[SegmentBatch]]:
    """The labelled windows of a converted set, through its shards, and all batches of them."""
    options = BuildOptions(datasets=(folder.name,), longest_segment_s=seconds)
    shards = build(folder.parent, out, options, workers=1).folder
    config = DataConfig(shards=[str(shards)], segment_duration=seconds, **data)
    source, table = open_windows(config, WindowConfig(hop_s=hop_s))
    stream = window_stream(source, table, config, shuffle=False)
    n_batches = -(-len(table) // 64)
    batches = [batch for batch, _ in zip(stream.batches(0, 64, 64, "cpu"), range(n_batches), strict=False)]
    stream.close()
    return table, batches
