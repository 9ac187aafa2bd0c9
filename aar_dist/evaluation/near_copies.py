"""The same stretch stored in two ways: packed on two grids, in two units, with other digits.

    tracks of a kind, rate and number of axes -> values in the unit of the kind -> a coarse grid -> anchors as of copies
    where two meet -> grown as far as the values agree to within the coarser of their two steps

Exact copies are found by :func:`aar_dist.evaluation.fingerprints.find_copies`; here only tracks that are stored in
different ways are compared. A rounded value falls into another cell of a coarse grid once in some 6 COARSE times, and
a block keeps its hash if none of its values does. So no length is found for sure: of moving stretches of three axes
nearly all of 500 samples are (tests/evaluation/test_near_copies.py).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from aar_dist.evaluation.fingerprints import Copy, Flags, grown, is_lively, meets_of
from aar_dist.evaluation.tracks import Track

COARSE = 16
"""Steps of the coarser of two ways of storing that make a cell of the coarse grid."""
SHIFTS = (0.0, 0.5)
"""Of two such grids, in cells: what lies at the border of one is in the middle of the other."""
SHORTEST = 128
"""Samples: to be alike is less than to be equal."""
PROBE = 4096
DIGITS = 2.0**-10
"""Least step, as a share of the deviation: what floats with few digits are rounded to."""
HALF_STEP = 16.0
"""Step of packed float16 where values are largest (aar_dist/shards/grids.py), in units of their scale."""
ROUNDING = 1e-6
MANY = 16
"""Different values that are needed to tell the digits of floats by."""
NOTHING = np.iinfo(np.int64).min


def find_near_copies(tracks: Sequence[Track]) -> list[Copy]:
    """Every long moving stretch that two recordings share, but for how it is stored."""
    groups: dict[tuple[str, int, float], list[Track]] = {}
    for track in tracks:
        groups.setdefault((track.kind, len(track.scale), round(track.rate_hz, 3)), []).append(track)
    return [copy for of in groups.values() if len({_form(t) for t in of}) > 1 for copy in _within(of)]


def _within(tracks: Sequence[Track]) -> Iterator[Copy]:
    """Those of one group, step by step: two tracks are compared with the coarser step of theirs."""
    least = DIGITS * _deviation(tracks)
    if not least > 0:
        return
    steps = [2.0 ** math.ceil(math.log2(max(least, _step(t)))) for t in tracks]
    for step in sorted(set(steps)):
        those = [t for t, own in zip(tracks, steps, strict=True) if own <= step]
        coarsest = np.array([own == step for own in steps if own <= step])
        if len({_form(t) for t in those}) > 1:
            yield from _alike(those, coarsest, step)


def _alike(tracks: Sequence[Track], coarsest: Flags, step: float) -> Iterator[Copy]:
    """Pairs of tracks stored in two ways, one of which has this step."""
    grids = [[replace(t, read=partial(_cells, t, COARSE * step, shift)) for t in tracks] for shift in SHIFTS]
    meets = np.concatenate([meets_of(cells) for cells in grids])
    form = np.unique([repr(_form(t)) for t in tracks], return_inverse=True)[1]
    a, b = meets[:, 0], meets[:, 1]
    meets = meets[(form[a] != form[b]) & (coarsest[a] | coarsest[b])]
    cell_of = {id(t): cell for t, cell in zip(tracks, grids[0], strict=True)}
    for copy in grown(tracks, meets, partial(_same_values, step), SHORTEST):
        if is_lively(cell_of[id(copy.first)], copy.first_start, copy.n):
            yield copy


def _form(track: Track) -> tuple[object, ...]:
    """How its samples are stored, and how exact copies are looked for."""
    return track.dtype, track.scale, track.zero, track.stored is None


def _step(track: Track) -> float:
    """Between neighbouring values, in the unit of the kind; of floats the digits they were written with."""
    scale = max(map(abs, track.scale))
    if track.dtype == "float16":
        return HALF_STEP * scale
    if track.dtype and np.dtype(track.dtype).kind in "iu":
        return scale
    return max(map(_least_gap, track.values(0, min(track.n, PROBE)).T), default=0.0)


def _least_gap(values: NDArray[np.float64]) -> float:
    """Between different values, but for the rounding of floats."""
    values = np.unique(values[np.isfinite(values)])
    gaps = np.diff(values)
    gaps = gaps[gaps > ROUNDING * max(map(abs, values[[0, -1]]), default=0.0)] if len(values) else gaps
    return float(gaps.min()) if len(gaps) >= MANY else 0.0


def _deviation(tracks: Sequence[Track]) -> float:
    """That of the median recording, at its beginning."""
    found = [float(np.nanmax(_std(t.values(0, min(t.n, PROBE))), initial=0.0)) for t in tracks if t.n]
    return float(np.median([x for x in found if x > 0] or [0.0]))


def _std(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each axis, 0 where there is nothing."""
    there = np.isfinite(values)
    n = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, values, 0.0).sum(axis=0) / n
    std: NDArray[np.float64] = np.sqrt(np.where(there, (values - mean) ** 2, 0.0).sum(axis=0) / n)
    return std


def _cells(track: Track, width: float, shift: float, start: int, stop: int) -> NDArray[np.int64]:
    """(n, axes) number of the cell of each value."""
    values = track.values(start, stop) / width + shift
    there = np.isfinite(values)
    return np.where(there, np.floor(np.where(there, values, 0.0)), NOTHING).astype(np.int64)


def _same_values(step: float, first: Track, i: int, second: Track, j: int, n: int) -> Flags:
    """Whether all axes agree to within a step."""
    a, b = first.values(i, i + n), second.values(j, j + n)
    agree: Flags = ((np.abs(a - b) <= step) | (np.isnan(a) & np.isnan(b))).all(axis=1)
    return agree
