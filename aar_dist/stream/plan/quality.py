"""How close batches come to fair draws from the epoch.

    batches of the tape, some of them -> shares of the data sets, segments that share a recording or a chunk
    quotas of the epoch               -> the same of an ideal shuffle, exactly

An ideal shuffle draws a batch from the epoch's segments without order and without putting back (hypergeometric).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from aar_dist.stream.columns import Floats, grouped
from aar_dist.stream.source import Source, first_rows
from aar_dist.stream.tape import Ints, Tape

MOST_BATCHES = 64
MOST_SEGMENTS = 4_000_000
POOR, SLIGHT = 1.5, 0.01  # from how many times the ideal, and how far above it, a figure is worth a change


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Means over the batches looked at; beside each what an ideal shuffle gives on average."""

    batches: int
    chi_square: float
    """Of the data sets' shares in a batch, over its degrees of freedom; 0 with one data set."""
    chi_square_ideal: float
    worst_share_error: float
    """Largest difference between a data set's share of a batch and of the epoch."""
    same_recording: float
    """Share of a batch whose recording another segment of the batch has already."""
    same_recording_ideal: float
    same_chunk: float
    same_chunk_ideal: float
    chunks_at_once: float
    """Chunks of which a batch may draw at one time."""
    spread: float
    """Share of the epoch over which neighbouring segments of the line are spread, at most 1."""
    spread_steps: float
    """The same in steps."""
    shares: tuple[tuple[float, ...], ...]
    """(batches, data sets)"""
    expected: tuple[float, ...]
    """Share of each data set in the epoch."""

    @property
    def mixed(self) -> bool:
        """Batches are no further from the mixture than fair draws are."""
        return self.chi_square <= POOR * max(self.chi_square_ideal, SLIGHT)

    @property
    def shuffled(self) -> bool:
        """Chunks are repeated hardly more often in a batch than by fair draws."""
        return self.same_chunk <= max(POOR * self.same_chunk_ideal, self.same_chunk_ideal + SLIGHT)


def quality(source: Source, tape: Tape, batch_size: int, most_batches: int = MOST_BATCHES) -> Quality:
    """Look at batches spread evenly over the first epoch."""
    n, n_batches = tape.n_segments, -(-tape.n_segments // batch_size)
    looked = min(n_batches, most_batches, max(1, MOST_SEGMENTS // batch_size))
    steps = np.linspace(0, n_batches - 1, looked).astype(np.int64)
    quota = tape.quotas(0)
    expected = np.array(tape.totals) / n
    row = first_rows(source.parts)
    recording, first = grouped(source.items.dataset, source.origin["recording"].codes[row])
    shares, same_recording, same_chunk = [], [], []
    for step in steps.tolist():
        item = tape.segments_at(tape.batches(step * batch_size, batch_size, 1)[0]).item
        shares.append(np.bincount(source.items.dataset[item], minlength=len(expected)) / batch_size)
        same_recording.append(1 - len(np.unique(recording[item])) / batch_size)
        same_chunk.append(1 - len(np.unique(item)) / batch_size)
    table = np.array(shares)
    freedom = max(1, len(expected) - 1)
    window = min(n, tape.lanes * tape.shuffle_block)
    return Quality(
        batches=looked,
        chi_square=float((batch_size * (table - expected) ** 2 / expected).sum(1).mean() / freedom),
        chi_square_ideal=max(0.0, (n - batch_size) / max(1, n - 1)) if len(expected) > 1 else 0.0,
        worst_share_error=float(np.abs(table - expected).max()),
        same_recording=float(np.mean(same_recording)),
        same_recording_ideal=_repeats(np.bincount(recording, quota, len(first)), n, batch_size),
        same_chunk=float(np.mean(same_chunk)),
        same_chunk_ideal=_repeats(quota, n, batch_size),
        chunks_at_once=_chunks_at_once(quota, tape, window),
        spread=window / n,
        spread_steps=window / batch_size,
        shares=tuple(map(tuple, table.tolist())),
        expected=tuple(expected.tolist()),
    )


def _repeats(quota: NDArray[np.number], n: int, batch_size: int) -> float:
    """Expected share of a batch that repeats a group already in it: 1 - E(different groups) / batch."""
    if batch_size >= n:
        return 1 - np.count_nonzero(quota) / batch_size
    size, groups = np.unique(quota[quota > 0], return_counts=True)
    missed = np.zeros(len(size))
    room = size <= n - batch_size
    missed[room] = np.exp(_log_choose(n - size[room], batch_size) - _log_choose(np.array([n]), batch_size))
    return float(1 - (groups * (1 - missed)).sum() / batch_size)


def _log_choose(n: NDArray[np.number], k: int) -> Floats:
    found: Floats = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return found


def _chunks_at_once(quota: Ints, tape: Tape, window: int) -> float:
    """Stretches of chunks into which lanes and blocks cut the line, for each window of it."""
    windows = tape.n_segments / window
    cuts = tape.lanes * np.ceil(windows) if window < tape.n_segments else 0
    drawn = np.count_nonzero(quota)
    return float(min(drawn, (drawn + cuts) / windows))
