"""From what a model says of overlapping windows to who did what, from when to when.

    windows (m,) with probabilities (m, K) -> steps: the mean of the windows over each -> runs of one class

Places are counted in samples. A step is a stretch over which the same windows lie; runs of one class touch no gap.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Steps:
    """n stretches in order, without overlap."""

    start: Ints
    stop: Ints
    probability: Floats
    """(n, K) mean over the windows that cover the step."""

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class Runs:
    """n stretches of one class, in order, without overlap."""

    start: Ints
    stop: Ints
    label: Ints
    confidence: Floats
    """(n,) mean probability of the class over the run."""

    def __len__(self) -> int:
        return len(self.start)


def averaged(start: Ints, stop: Ints, said: NDArray[np.floating], recorded: Ints) -> Steps:
    """The steps of windows, cut to what was recorded.

    Args:
        start, stop: (m,) of the windows, both rising.
        said: (m, K) probabilities.
        recorded: (r, 2) stretches [start, stop) with samples, in order.
    """
    edges = np.unique(np.concatenate([start, stop, recorded.reshape(-1)]))
    left, right = edges[:-1], edges[1:]
    inside = np.searchsorted(recorded[:, 1], left, side="right")
    there = np.append(recorded[:, 0], np.iinfo(np.int64).max)[inside] <= left
    first, last = np.searchsorted(stop, left, side="right"), np.searchsorted(start, left, side="right")
    there &= last > first
    left, right, first, last = left[there], right[there], first[there], last[there]
    total, count = np.zeros((len(left), said.shape[1])), last - first
    for k in range(int(count.max(initial=0))):
        covers = k < count
        total[covers] += said[first[covers] + k]
    return Steps(left, right, total / count[:, None])


def runs_of(steps: Steps, min_samples: float = 0.0) -> Runs:
    """Neighbouring steps of the same most probable class as one run; runs under ``min_samples`` are smoothed away.

    The shortest run (of several, the earliest) is given, whole, to that of its two neighbours whose class has the
    higher mean probability over it (in doubt the earlier one), and becomes one with it, and with the other neighbour
    too where that has the same class. This is repeated until no run is too short. A neighbour is a run that begins or
    ends where this one does: a run between two gaps has none and stays.
    """
    if not len(steps):
        return Runs(steps.start, steps.stop, np.zeros(0, np.int64), np.zeros(0))
    label = steps.probability.argmax(axis=1)
    first = np.flatnonzero(np.r_[True, (label[1:] != label[:-1]) | (steps.start[1:] != steps.stop[:-1])])
    weight = np.add.reduceat(steps.probability * (steps.stop - steps.start)[:, None], first)
    last = np.append(first[1:], len(label)) - 1
    start, stop, label = steps.start[first], steps.stop[last], label[first]
    if min_samples > 0:
        min_samples -= 1e-6  # 1.1 s at 10 Hz are 11 samples, though not in floats
        keep, stop, label, weight = _Smoother(start, stop, label, weight).smooth(min_samples)
        start, stop, label, weight = start[keep], stop[keep], label[keep], weight[keep]
    confidence = weight[np.arange(len(label)), label] / np.maximum(stop - start, 1)
    return Runs(start, stop, label, confidence)


class _Smoother:
    """Runs as a linked list; what is merged lives on in the earlier of the two."""

    def __init__(self, start: Ints, stop: Ints, label: Ints, weight: Floats) -> None:
        n = len(start)
        self.start, self.stop, self.label, self.weight = start.tolist(), stop.tolist(), label.tolist(), weight.copy()
        self.before, self.after = list(range(-1, n - 1)), [*range(1, n), -1]
        self.alive = np.ones(n, bool)

    def smooth(self, min_samples: float) -> tuple[NDArray[np.bool_], Ints, Ints, Floats]:
        """Which runs are left, and stop, label and weight of all."""
        heap = [(b - a, i) for i, (a, b) in enumerate(zip(self.start, self.stop, strict=True)) if b - a < min_samples]
        heapq.heapify(heap)
        while heap:
            length, i = heapq.heappop(heap)
            if not self.alive[i] or length != self.stop[i] - self.start[i]:
                continue  # it has been merged since, and stands in the heap again if it is still too short
            merged = self._give_away(i)
            if merged is not None and (length := self.stop[merged] - self.start[merged]) < min_samples:
                heapq.heappush(heap, (length, merged))
        return self.alive, np.array(self.stop, np.int64), np.array(self.label, np.int64), self.weight

    def _give_away(self, i: int) -> int | None:
        """Give run i to a neighbour; returns the run that it is part of now, None where there is no neighbour."""
        before, after = self.before[i], self.after[i]
        touching = [j for j in (before, after) if j >= 0 and self._touch(i, j)]
        if not touching:
            return None
        taker = max(touching, key=lambda j: self.weight[i, self.label[j]])  # the first of equals
        self.label[i] = self.label[taker]
        for j in touching:
            if self.label[j] == self.label[i]:
                i = self._merge(min(i, j), max(i, j))
        return i

    def _touch(self, i: int, j: int) -> bool:
        return bool(self.stop[min(i, j)] == self.start[max(i, j)])

    def _merge(self, i: int, j: int) -> int:
        """Run j becomes part of i, which stands before it."""
        self.stop[i], self.alive[j] = self.stop[j], False
        self.weight[i] += self.weight[j]
        self.after[i] = self.after[j]
        if self.after[j] >= 0:
            self.before[self.after[j]] = i
        return i


def stretches(present: NDArray[np.bool_], first: int = 0) -> Ints:
    """(r, 2) runs [start, stop) of True among samples of which the first is number ``first``."""
    edges = np.flatnonzero(np.diff(np.r_[False, present, False].astype(np.int8)))
    return edges.reshape(-1, 2).astype(np.int64) + first


def bridged(recorded: Ints, shorter_than: float) -> Ints:
    """Stretches (r, 2) with the gaps between them that are shorter than so many samples left out."""
    if not len(recorded):
        return recorded
    cut = np.flatnonzero(recorded[1:, 0] - recorded[:-1, 1] >= shorter_than)
    return np.stack([recorded[np.r_[0, cut + 1], 0], recorded[np.r_[cut, len(recorded) - 1], 1]], axis=1)
