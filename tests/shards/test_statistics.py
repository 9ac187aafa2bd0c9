"""Statistics of a chunk in one pass: those of the plain formulas, for any length, type and gaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aar_dist.shards.statistics import HEIGHT, WIDTH, moments

LANES = WIDTH // 3


def plain(values):
    x = values.astype(np.float64)
    return np.isfinite(x).sum(0), np.nanmean(x, 0), np.nanstd(x, 0)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([1, 2, LANES - 1, LANES, LANES + 1, HEIGHT * LANES, HEIGHT * LANES + 5, 3 * HEIGHT * LANES + 77]),
    st.sampled_from(["<f4", "<f8", "<f2", "<i2", "<u1", "<i4", "<i8"]),
    st.integers(0, 2**16),
)
def test_moments_are_those_of_the_formulas(n, dtype, seed):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(n, 3)) * [1, 20, 5] + [50, 100, 90]).astype(dtype)
    if dtype[1] == "f":
        values[rng.random(values.shape) < 0.2] = np.nan
        values[0] = 1.0
    found, (count, mean, std) = moments(values), plain(values)
    assert np.array_equal(found.n, count)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.std, std, rtol=1e-7, atol=1e-9)


def test_a_small_swing_on_a_large_offset_is_kept():
    values = 1e9 + np.resize([-1, 1], (40_000, 1)).astype("<i8")
    assert moments(values).std == pytest.approx(1.0)


def test_nothing_there():
    for values in (np.zeros((0, 2), "<f4"), np.full((3, 2), np.nan, "<f4")):
        found = moments(values)
        assert found.n.tolist() == found.mean.tolist() == found.std.tolist() == [0, 0]
