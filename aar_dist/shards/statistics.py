"""Count, mean, deviation and range per axis, in one pass over blocks that stay in the processor's cache.

stored values (n, A), NaN where there is none -> Moments, extremes

Blocks are summed lane by lane, each lane in order: the same bits on every machine, whatever its vector width.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 1536, 64  # of a block: 0.8 MB in float64


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Of the values of each axis (A,) that are not NaN."""

    n: NDArray[np.int64]
    mean: Floats
    """0 where there is none."""
    std: Floats


@dataclass
class _Sums:
    """Sums over lanes of x - pivot and its square, and how many values are missing."""

    pivot: Floats
    first: Floats
    second: Floats
    missing: NDArray[np.int64]

    def add(self, block: NDArray[np.generic], buffer: Floats) -> None:
        """Add a block (rows, lanes); the buffer is at least as large."""
        x = np.subtract(block, self.pivot, out=buffer[: len(block)], dtype=np.float64)
        total = x.sum(0)
        if not np.isfinite(total).all():
            bad = ~np.isfinite(x)
            self.missing += bad.sum(0)
            x[bad] = 0.0
            total = x.sum(0)
        self.first += total
        self.second += np.multiply(x, x, out=x).sum(0)


def moments(values: NDArray[np.generic]) -> Moments:
    """The moments of (n, A) integers or floats."""
    axes = values.shape[1]
    lanes = max(1, WIDTH // axes)
    table, rest = _table(values, lanes)
    sums = _Sums(
        pivot=np.tile(_pivot(values), lanes),
        first=np.zeros(lanes * axes),
        second=np.zeros(lanes * axes),
        missing=np.zeros(lanes * axes, np.int64),
    )
    buffer = np.empty((HEIGHT, lanes * axes))
    for at in range(0, len(table), HEIGHT):
        sums.add(table[at : at + HEIGHT], buffer)
    sums.add(rest, buffer)
    return _moments(sums, axes, (len(table) + 1) * lanes)


def extremes(values: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """The least and the largest of (n, A) per axis; NaN where there is none."""
    axes = values.shape[1]
    table, rest = _table(values, max(1, WIDTH // axes))
    found = []
    for of in (np.fmin, np.fmax):
        each = of.reduce(table, axis=0).astype(np.float64) if len(table) else rest[0]
        found.append(of.reduce(of(each, rest[0]).reshape(-1, axes), axis=0))
    return found[0], found[1]


def _table(values: NDArray[np.generic], lanes: int) -> tuple[NDArray[np.generic], Floats]:
    """Values (n, A) as rows of so many samples, and the rest as one row, filled up with NaN."""
    n, axes = values.shape
    whole = n // lanes * lanes
    rest = np.full((lanes, axes), np.nan)
    rest[: n - whole] = values[whole:]
    return values[:whole].reshape(-1, lanes * axes), rest.reshape(1, -1)


def _pivot(values: NDArray[np.generic]) -> Floats:
    """The first value of each axis: what is summed is small beside the values themselves. 0 where it is missing."""
    head = values[:HEIGHT].astype(np.float64)
    if not len(head):
        return np.zeros(head.shape[1])
    ok = np.isfinite(head)
    pivot: Floats = np.where(ok, head, 0.0)[ok.argmax(0), np.arange(head.shape[1])]
    return pivot


def _moments(sums: _Sums, axes: int, rows: int) -> Moments:
    """Lanes folded to axes; ``rows`` were summed of each axis, missing ones counted."""
    first, second, missing = (x.reshape(-1, axes).sum(0) for x in (sums.first, sums.second, sums.missing))
    n = rows - missing
    count = np.maximum(n, 1)
    shift = first / count
    variance = np.maximum(second / count - shift**2, 0.0)
    mean = np.where(n > 0, sums.pivot[:axes] + shift, 0.0)
    return Moments(n=n, mean=mean, std=np.sqrt(variance))
