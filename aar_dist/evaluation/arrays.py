"""Labelled windows as arrays: the same samples, in the same unit, as the network is given.

WindowTable -> window_stream -> Windows(values (n, T, C), valid (n, T, C), rate_hz (n,), label (n,))
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import SegmentStream
from aar_dist.stream.source import Source, first_rows
from aar_dist.stream.windows import WindowTable, window_stream

BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Windows:
    """n windows of C channels, T samples the longest of them."""

    values: NDArray[np.float32]
    """(n, T, C) in the unit of the kind of sensor, or as ``data.normalize`` makes them; 0 where not valid."""
    valid: NDArray[np.bool_]
    """(n, T, C)."""
    rate_hz: NDArray[np.float64]
    """(n,)."""
    label: NDArray[Any]
    """(n,) int64 class, or float32 target."""

    def __len__(self) -> int:
        return len(self.label)

    def select(self, mask: NDArray[Any]) -> "Windows":
        """The windows of a mask or at some indices."""
        return Windows(
            values=self.values[mask], valid=self.valid[mask], rate_hz=self.rate_hz[mask], label=self.label[mask]
        )


def window_arrays(source: Source, table: WindowTable, data: DataConfig) -> Windows:
    """The windows of a table, in its order; all of them in memory."""
    n, width = len(table), source.n_columns
    longest = int(source.rows.window[first_rows(source.parts[table.item])].max())
    values, valid = np.zeros((n, longest, width), np.float32), np.zeros((n, longest, width), np.bool_)
    rate_hz, done = np.zeros(n), 0
    with window_stream(source, table, data, shuffle=False) as stream:
        for batch in batches_once(stream, BATCH):
            rows, length = slice(done, done + len(batch)), batch.values.shape[1]
            values[rows, :length], valid[rows, :length] = batch.values.numpy(), batch.valid.numpy()
            rate_hz[rows] = batch.rate_hz.numpy()
            done += len(batch)
    return Windows(values=values, valid=valid, rate_hz=rate_hz, label=table.label)


def batches_once(stream: SegmentStream, batch_size: int) -> Iterator[SegmentBatch]:
    """Every segment of the first epoch once, in order; the last batch holds what is left."""
    for batch, weight in stream.evaluation(batch_size, batch_size):
        n = int((weight > 0).sum())
        yield batch if n == len(batch) else batch.take(range(n))
