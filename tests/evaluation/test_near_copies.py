"""What is stored in two ways is found again, and nothing else is."""

import numpy as np
import pytest
from scipy.signal import lfilter

from aar_dist.evaluation.fingerprints import find_copies
from aar_dist.evaluation.near_copies import find_near_copies
from aar_dist.evaluation.tracks import Track
from aar_dist.shards.packing import Grid

RNG = np.random.default_rng(8)
G = 9.81


def signal(n: int) -> np.ndarray:
    """An accelerometer at work [g]."""
    return lfilter([0.3], [1, -0.7], RNG.normal(size=(n, 3)), axis=0) + np.array([0, 0.3, 1])


def track(stored: np.ndarray, name: str, scale: float = 1.0, zero: float = 0.0, dtype: str | None = None) -> Track:
    way = {"scale": (scale,) * 3, "zero": (zero,) * 3, "dtype": dtype or stored.dtype.str, "kind": "acc"}
    return Track("d", f"d/{name}", name, "acc", 50.0, len(stored), None, lambda a, b: stored[a:b], name, **way)


def packed(values: np.ndarray, name: str, form: str, scale: float) -> Track:
    grid = Grid(format=form, scale=(scale,) * 3, zero=(0.125,) * 3)
    return track(grid.pack(values), name, scale, 0.125, form)


WAYS = {
    "float": lambda x, name: track(x.astype("<f4"), name),
    "m/s2 with two decimals": lambda x, name: track(np.round(x * G, 2).astype("<f4"), name, 1 / G),
    "raw counts": lambda x, name: track(np.rint(x / 0.0039).astype("<i2"), name, 0.0039),
    "int16": lambda x, name: packed(x, name, "int16", 2.0**-7),
    "another int16": lambda x, name: packed(x, name, "int16", 2.0**-6),
    "float16": lambda x, name: packed(x, name, "float16", 2.0**-11),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_a_stretch_is_found_however_both_are_stored(way):
    """Each copy of 800 samples stands in a recording of every other way."""
    original, tracks = signal(4000), []
    for k, (name, other) in enumerate(WAYS.items()):
        values = signal(3000)
        values[100 * k : 100 * k + 800] = original[2000:2800]
        tracks += [other(values, name)] if name != way else []
        tracks.append(other(signal(2000), f"{name} alone"))
    tracks.append(WAYS[way](original, "original"))
    found = [c for c in find_near_copies(tracks) if "original" in (c.first.name, c.second.name)]
    assert find_copies(tracks) == []
    assert {c.first.name for c in found} | {c.second.name for c in found} == {"original", *WAYS} - {way}
    for copy in found:
        ends = {copy.first.name: copy.first_start, copy.second.name: copy.second_start}
        start = ends.pop("original")
        ((name, other),) = ends.items()
        assert start - other == 2000 - 100 * list(WAYS).index(name)
        assert abs(copy.n - 800) <= 4, "neighbours may agree by chance"


def test_still_lying_and_gaps_are_no_copies():
    still = np.tile([0.0, 0.3, 0.9], (3000, 1)) + RNG.normal(0, 0.002, (3000, 3))
    gap = np.full((3000, 3), np.nan)
    moving = signal(3000)
    for a, b in ((still, still + 0.001), (gap, gap)):
        tracks = [WAYS["float"](a, "a"), WAYS["int16"](np.nan_to_num(b), "b"), WAYS["float"](moving, "m")]
        assert find_near_copies(tracks) == []
    assert find_near_copies([]) == []


def test_other_rates_and_kinds_are_not_compared():
    values = signal(2000)
    one, other = WAYS["float"](values, "a"), WAYS["int16"](values, "b")
    assert len(find_near_copies([one, other])) == 1
    for change in ({"rate_hz": 25.0}, {"kind": "gyr"}):
        assert find_near_copies([one, Track(**{**vars(other), **change})]) == []
