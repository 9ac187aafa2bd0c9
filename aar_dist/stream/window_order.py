"""Which labelled window stands at which position: a pure function of (seed, epoch, position), as on the tape.

natural:  an epoch is every window once, shuffled anew
balanced: an epoch is every class equally often, K classes of round(n / K) windows each, shuffled anew; each class goes
          through its own windows round by round, whatever the epochs, so that all of them are seen equally often
"""

from typing import TYPE_CHECKING, Literal

import numpy as np

from aar_dist.base.hashing import UInt64, hash_np, word
from aar_dist.stream.tape import Ints, SegmentRefs, permuted

if TYPE_CHECKING:
    from aar_dist.stream.windows import WindowTable

Sampling = Literal["natural", "balanced"]


class WindowOrder:
    """Every window once: shuffled anew in every epoch for training, as they stand for evaluation."""

    def __init__(self, table: "WindowTable", *, seed: int, shuffle: bool) -> None:
        self.table, self.seed, self.shuffle = table, seed, shuffle

    @property
    def n_segments(self) -> int:
        """Windows of one epoch."""
        return len(self.table)

    def drawn(self) -> Ints:
        """Items that windows lie in."""
        items: Ints = np.unique(self.table.item)
        return items

    def batches(self, position: int, batch_size: int, n_batches: int) -> Ints:
        """Positions of the next global batches, (n_batches, batch_size)."""
        return position + np.arange(n_batches * batch_size, dtype=np.int64).reshape(n_batches, batch_size)

    def segments_at(self, positions: Ints) -> SegmentRefs:
        """The windows at these positions (any shape)."""
        epoch, place = np.divmod(np.asarray(positions, np.int64), self.n_segments)
        window = self._window(epoch.reshape(-1), place.reshape(-1)).reshape(place.shape)
        return SegmentRefs(
            item=self.table.item[window],
            start=self.table.start[window],
            key=hash_np(self.seed, word("window"), epoch, place),
            label=self.table.label[window],
        )

    def _window(self, epoch: Ints, place: Ints) -> Ints:
        """(n,) row of the table at each place of an epoch."""
        return self._shuffled(epoch, place, "windows") if self.shuffle else place

    def _shuffled(self, epoch: Ints, place: Ints, what: str) -> Ints:
        key: UInt64 = hash_np(self.seed, word(what), epoch)
        return permuted(place, np.full(place.size, self.n_segments), key)


class BalancedOrder(WindowOrder):
    """Every class equally often in each epoch; for training, over classes."""

    def __init__(self, table: "WindowTable", *, seed: int, shuffle: bool = True) -> None:
        super().__init__(table, seed=seed, shuffle=shuffle)
        label = table.label
        self._members: Ints = np.argsort(label, kind="stable")[np.count_nonzero(label < 0) :]
        """Rows of the first class, of the second, …"""
        self._class, self._count = np.unique(label[label >= 0], return_counts=True)
        self._first: Ints = np.cumsum(self._count) - self._count
        self.quota = max(1, round(len(self._members) / len(self._class)))
        """Windows of each class in an epoch."""

    @property
    def n_segments(self) -> int:
        """Windows of one epoch."""
        return self.quota * len(self._class)

    def _window(self, epoch: Ints, place: Ints) -> Ints:
        turn, k = np.divmod(self._shuffled(epoch, place, "balanced"), len(self._class))
        count = self._count[k]
        # Draws of a class are counted through all epochs: its round ends when each of its windows has had its turn.
        lap, at = np.divmod(epoch * self.quota + turn, count)
        key = hash_np(self.seed, word("class"), self._class[k], lap)
        rows: Ints = self._members[self._first[k] + permuted(at, count, key)]
        return rows
