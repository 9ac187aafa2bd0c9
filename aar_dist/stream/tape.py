"""The tape: which segment stands at which position, whatever the cluster.

    (seed, epoch, position) -> lane, place -> shuffled place -> line of the epoch -> item, k-th of q -> start

A pure function: no generator, no state. An epoch's line holds every item (a chunk of a sensor) as often as its quota
says, shards permuted and interleaved. The line is cut into lanes, which successive positions visit in steps of the
golden ratio, so that a batch of any size is spread evenly over the line. A global batch is the next B positions sorted
by (epoch, lane), of which rank r of W serves its r-th equal part.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.hashing import UInt64, below_np, hash_int, hash_np, hash_on_np, word

Ints = NDArray[np.int64]

TAPE_VERSION = 1
U_BITS = 20  # of the rounding's start: floor(T + u) stays exact for running totals up to 2**33
FEISTEL_ROUNDS = 4
LINES_KEPT = 3
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, kw_only=True)
class Items:
    """What can be drawn, sorted by (dataset, shard). n items; names are hashed, so that order is all that counts."""

    dataset: Ints
    """(n,) index of the data set."""
    shard: Ints
    """(n,) index of the shard."""
    shard_word: UInt64
    """(n_shards,) hash of each shard's name."""
    weight: NDArray[np.float64]
    """(n,) share within the data set, any scale; 0 where nothing can be drawn."""
    n_starts: Ints
    """(n,) places at which a segment can start."""


@dataclass(frozen=True, kw_only=True)
class SegmentRefs:
    """Segments at some positions of the tape."""

    item: Ints
    start: Ints
    """Sample of the item at which the segment starts."""
    key: UInt64
    """Address of all further draws for the segment."""
    label: NDArray[Any] | None = None
    """Class (int64) or target (float32) of labelled windows."""

    def rows(self) -> Iterator["SegmentRefs"]:
        """The refs of each row of a table of positions."""
        labels = repeat(None) if self.label is None else iter(self.label)
        for item, start, key, label in zip(self.item, self.start, self.key, labels, strict=False):
            yield SegmentRefs(item=item, start=start, key=key, label=label)


class Order(Protocol):
    """Which segment stands where; all that a stream asks for."""

    @property
    def n_segments(self) -> int:
        """Segments of one epoch."""

    def drawn(self) -> Ints:
        """Items that segments are drawn from."""

    def batches(self, position: int, batch_size: int, n_batches: int) -> Ints:
        """Positions of the next global batches, (n_batches, batch_size)."""

    def segments_at(self, positions: Ints) -> SegmentRefs:
        """The segments at these positions (any shape)."""


@dataclass(frozen=True)
class _Line:
    """The items of one epoch in order, and how many segments stand before the end of each."""

    item: Ints
    ends: Ints


class Tape:
    """The order of segments under one seed."""

    def __init__(self, items: Items, totals: list[int], *, seed: int, lanes: int, shuffle_block: int) -> None:
        self.items, self.totals, self.seed = items, totals, seed
        self.n_segments = sum(totals)
        self.lanes = min(lanes, self.n_segments)
        self.shuffle_block = shuffle_block
        self._lane_at = _golden_order(self.lanes)
        self._lane_length, self._lane_start = self._cut_lanes()
        self._lines: OrderedDict[int, _Line] = OrderedDict()

    def recut(self, lanes: int, shuffle_block: int) -> "Tape":
        """The same line of every epoch in other lanes and blocks."""
        other = Tape(self.items, self.totals, seed=self.seed, lanes=lanes, shuffle_block=shuffle_block)
        other._lines = self._lines
        return other

    def _cut_lanes(self) -> tuple[Ints, Ints]:
        """Segments of each lane, which differ by at most one, and where it starts in the line."""
        short, longer = divmod(self.n_segments, self.lanes)
        length = np.full(self.lanes, short, np.int64)
        length[self._lane_at[:longer]] += 1
        return length, np.cumsum(length) - length

    def drawn(self) -> Ints:
        """Items that segments are drawn from."""
        return np.flatnonzero(self.items.weight > 0)

    def batches(self, position: int, batch_size: int, n_batches: int) -> Ints:
        """Positions of the next global batches, (n_batches, batch_size), each sorted by (epoch, lane)."""
        positions = position + np.arange(n_batches * batch_size, dtype=np.int64).reshape(n_batches, batch_size)
        epoch, place = np.divmod(positions, self.n_segments)
        key = (epoch - epoch[0, 0]) * self.lanes + self._lane_at[place % self.lanes]
        if key.max(initial=0) < 2**16:
            key = key.astype(np.uint16)  # NumPy sorts these by radix, ten times as fast
        return np.take_along_axis(positions, np.argsort(key, axis=1, kind="stable"), axis=1)

    def lane_of(self, positions: Ints) -> Ints:
        """Lane in which each position stands."""
        lane: Ints = self._lane_at[positions % self.n_segments % self.lanes]
        return lane

    def lane_ends(self) -> Ints:
        """Segments of an epoch's line before the end of each lane."""
        ends: Ints = self._lane_start + self._lane_length
        return ends

    def quotas(self, epoch: int) -> Ints:
        """(n,) segments of each item in an epoch."""
        line, quota = self._line(epoch), np.zeros(len(self.items.dataset), np.int64)
        quota[line.item] = np.diff(line.ends, prepend=0)
        return quota

    def shard_ends(self, epoch: int) -> tuple[Ints, Ints]:
        """Shards in the order of an epoch's line, and how many of its segments stand before the end of each."""
        line = self._line(epoch)
        shard = self.items.shard[line.item]
        last = np.flatnonzero(np.diff(shard, append=-1))
        return shard[last], line.ends[last]

    def segments_at(self, positions: Ints) -> SegmentRefs:
        """The segments at these positions (any shape). Same answer on every rank and after every restart."""
        flat = np.asarray(positions, np.int64).reshape(-1)
        epoch, place = np.divmod(flat, self.n_segments)
        item, start, key = np.empty_like(flat), np.empty_like(flat), np.empty(flat.shape, np.uint64)
        for e in np.unique(epoch).tolist():
            at = epoch == e
            item[at], start[at] = self._in_epoch(e, place[at])
            key[at] = hash_np(self.seed, word("segment"), e, place[at])
        shape = np.shape(positions)
        return SegmentRefs(item=item.reshape(shape), start=start.reshape(shape), key=key.reshape(shape))

    def _in_epoch(self, epoch: int, place: Ints) -> tuple[Ints, Ints]:
        line = self._line(epoch)
        at = self._shuffled(epoch, place)
        which = np.searchsorted(line.ends, at, side="right")
        item = line.item[which]
        first = np.where(which > 0, line.ends[which - 1], 0)
        quota, n = line.ends[which] - first, self.items.n_starts[item]
        # The k-th of q draws falls inside the k-th of q equal stretches: random offsets, nothing left unseen.
        k = at - first
        low, high = k * n // quota, (k + 1) * n // quota
        draw = below_np(hash_np(self.seed, word("start"), epoch, at), high - low)
        return item, low + draw

    def _shuffled(self, epoch: int, position: Ints) -> Ints:
        """Position in the epoch -> place in its line, through lanes shuffled in blocks."""
        place, visit = np.divmod(position, self.lanes)
        lane = self._lane_at[visit]
        block, inside = np.divmod(place, self.shuffle_block)
        size = np.minimum(self.shuffle_block, self._lane_length[lane] - block * self.shuffle_block)
        key = hash_np(self.seed, word("shuffle"), epoch, lane, block)
        line: Ints = self._lane_start[lane] + block * self.shuffle_block + permuted(inside, size, key)
        return line

    def _line(self, epoch: int) -> _Line:
        if epoch not in self._lines:
            self._lines[epoch] = self._make_line(epoch)
            while len(self._lines) > LINES_KEPT:
                self._lines.popitem(last=False)
        return self._lines[epoch]

    def _make_line(self, epoch: int) -> _Line:
        quota = self._quotas(epoch)
        order = np.argsort(self._shard_rank(epoch)[self.items.shard], kind="stable")
        quota = quota[order]
        if not quota.all():
            order, quota = order[quota > 0], quota[quota > 0]
        return _Line(item=order, ends=np.cumsum(quota))

    def _quotas(self, epoch: int) -> Ints:
        """Segments of each item in an epoch: systematic rounding, so that every data set's total is exact."""
        quota = np.zeros(len(self.items.dataset), np.int64)
        edges = np.searchsorted(self.items.dataset, np.arange(len(self.totals) + 1))
        for d, total in enumerate(self.totals):
            at = slice(edges[d], edges[d + 1])
            running = np.cumsum(self.items.weight[at])
            running /= running[-1]  # in place: there may be millions
            running *= total
            running += self._rounding_start(epoch, d)
            quota[at] = np.floor(running, out=running)
            quota[at][1:] -= running[:-1].astype(np.int64)
        return quota

    def _rounding_start(self, epoch: int, dataset: int) -> float:
        # Steps of the golden ratio spread the starts evenly: a share of 0.3 is drawn in 3 epochs of 10.
        start = (hash_int(self.seed, word("rounding"), dataset) + epoch * _GOLDEN) % 2**64
        u: float = (start >> (64 - U_BITS)) / 2**U_BITS
        return u

    def _shard_rank(self, epoch: int) -> Ints:
        """Rank of each shard in the line: each data set's shards permuted, then interleaved by fractional rank."""
        n = len(self.items.shard_word)
        dataset = np.zeros(n, np.int64)
        dataset[self.items.shard] = self.items.dataset
        draw = hash_np(self.seed, word("shards"), epoch, self.items.shard_word)
        order = np.lexsort((np.arange(n), draw, dataset))
        count = np.bincount(dataset, minlength=len(self.totals))
        first = np.cumsum(count) - count
        fraction = np.empty(n)
        fraction[order] = (np.arange(n) - first[dataset[order]] + 0.5) / count[dataset[order]]
        rank = np.empty(n, np.int64)
        rank[np.lexsort((draw, fraction))] = np.arange(n)
        return rank


def _golden_order(n: int) -> Ints:
    """0 … n - 1 in steps of about n / golden ratio: any few in a row are spread evenly over the range."""
    step = next(s for s in range(max(1, round(n * 0.6180339887)), 2 * n + 1) if math.gcd(s, n) == 1)
    return np.arange(n, dtype=np.int64) * step % n


def permuted(index: Ints, size: Ints, key: UInt64) -> Ints:
    """``index`` in [0, size) -> its place in a permutation of that range, one permutation for each key.

    A balanced Feistel network on the next even number of bits; what falls outside the range walks its cycle until it is
    inside (Black & Rogaway 2002). Nothing is materialised, so any position costs the same.
    """
    bits = np.frexp(np.maximum(size, 2) - 1)[1]
    half, placed = (bits + 1) // 2, np.empty(index.size, np.int64)
    for h in np.flatnonzero(np.bincount(half)).tolist():
        at = np.flatnonzero(half == h)
        placed[at] = _walked(index[at], size[at], key[at], h)
    return placed


def _walked(index: Ints, size: Ints, key: UInt64, bits: int) -> UInt64:
    """:func:`permuted` for sizes of up to 2 · ``bits`` bits."""
    half, mask = np.uint64(bits), np.uint64((1 << bits) - 1)
    x, limit = index.astype(np.uint64), size.astype(np.uint64)
    start = hash_np(key)
    turns = [hash_on_np(start, turn) for turn in range(FEISTEL_ROUNDS)]
    placed, walking = np.empty_like(x), np.arange(x.size)
    while walking.size:
        left, right = x >> half, x & mask
        for turn in turns:
            left, right = right, left ^ (hash_on_np(turn, right) & mask)
        x = (left << half) | right
        placed[walking] = x
        outside = np.flatnonzero(x >= limit)
        walking, x, limit = walking[outside], x[outside], limit[outside]
        turns = [turn[outside] for turn in turns]
    return placed
