"""Resampling to one rate, against plain loops and against waves that are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aar_dist.models.resampling import resample

STEPS = st.integers(103, 4096).map(lambda n: n / 512)  # 5 resampled samples for one recorded, to 8 recorded for one


def at_rate(x, rate_hz, new_hz, length, valid=None):
    """A single channel (T,) -> values and valid (L,)."""
    x = torch.as_tensor(x, dtype=torch.float32)
    valid = torch.ones(len(x), dtype=torch.bool) if valid is None else torch.as_tensor(valid)
    step = torch.tensor([rate_hz]).double() / torch.tensor([new_hz])
    values, valid = resample(x[None, :, None], valid[None, :, None], step, length)
    return values[0, :, 0], valid[0, :, 0]


def mean_by_loop(x, valid, step, length):
    """Each resampled sample as the mean of what lies around it, one by one."""
    n = 1 + max(np.flatnonzero(valid), default=-1)
    values, whole = np.zeros(length), np.zeros(length, bool)
    for k in range(length):
        place = k * step
        if place >= n - 0.5:
            break
        centre = min(place, n - 1)
        half = min(max(step, 1) / 2, centre + 0.5, n - 0.5 - centre)
        share = [max(0, min(centre + half, i + 0.5) - max(centre - half, i - 0.5)) for i in range(n)]
        whole[k] = all(valid[i] for i in range(n) if share[i] > 0)
        values[k] = np.dot(share, x[:n]) / (2 * half) if whole[k] else 0
    return values, whole


@given(st.lists(st.tuples(st.integers(-99, 99), st.integers(0, 9)), min_size=1, max_size=40), STEPS)
@settings(max_examples=200, deadline=None)
def test_equals_a_plain_loop(samples, step):
    x, valid = np.array([v for v, _ in samples], float), np.array([flag > 0 for _, flag in samples])
    length = int(len(x) / step) + 3
    expected, whole = mean_by_loop(x, valid, step, length)
    # What is not valid may be anything.
    values, found = at_rate(np.where(valid, x, np.nan), step, 1.0, length, valid)
    np.testing.assert_array_equal(found, whole)
    np.testing.assert_allclose(values, expected, atol=1e-4)


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=40), st.integers(205, 1024))
@settings(max_examples=100, deadline=None)
def test_a_line_between_samples_where_the_rate_rises(x, step):
    step /= 1024
    length = int((len(x) - 0.5) / step)
    values, valid = at_rate(x, step, 1.0, length)
    assert valid.all()
    np.testing.assert_allclose(values, np.interp(np.arange(length) * step, np.arange(len(x)), x), atol=1e-4)


@pytest.mark.parametrize("rate_hz", [25.0, 100 / 3, 31.9])
def test_samples_stay_as_they_are_where_the_rate_stays(rate_hz):
    x, valid = torch.randn(1000), torch.rand(1000) > 0.1
    values, kept = at_rate(x, rate_hz, rate_hz * (1 + 1e-7), 1000, valid)
    assert torch.equal(kept, valid)
    torch.testing.assert_close(values, x * valid, atol=0.02 / 1024, rtol=0)


@pytest.mark.parametrize("rate_hz", [5.0, 10.0, 12.55, 20.0, 25.0, 33.35, 50.0, 99.9, 100.0, 400.0])
def test_rest_is_rest_to_the_ends_at_any_rate(rate_hz):
    n = round(10 * rate_hz)
    values, valid = at_rate(torch.full((n,), 0.98), rate_hz, 25.0, 275)
    torch.testing.assert_close(values, 0.98 * valid)
    assert valid[:247].all()
    assert not valid[250:].any()  # though 126 samples at 12.55 Hz last longer than 10 s


@pytest.mark.parametrize(("rate_hz", "error"), [(20.0, 0.015), (50.0, 0.005), (100.0, 0.005)])
def test_a_wave_keeps_its_size_and_its_phase(rate_hz, error):
    def wave(rate):
        return np.sin(2 * np.pi * np.arange(round(10 * rate)) / rate)

    values, _ = at_rate(wave(rate_hz), rate_hz, 25.0, 250)
    inner = slice(1, -1)  # the first sample is taken as it is, the last one of a slow recording is held
    np.testing.assert_allclose(values[inner], wave(25.0)[inner], atol=error)


def test_what_is_too_fast_for_the_new_rate_does_not_come_out_as_something_slow():
    fast = np.sin(2 * np.pi * 20 * np.arange(1000) / 100)  # at 25 Hz it would look like 5 Hz
    values, _ = at_rate(fast, 100.0, 25.0, 250)
    assert values.std() < 0.25 * fast[::4].std()


def test_a_gap_spoils_what_is_made_from_it_and_nothing_else():
    valid = np.ones(1000, bool)
    valid[403] = False
    _, kept = at_rate(np.ones(1000), 100.0, 25.0, 250, valid)
    assert np.flatnonzero(~kept).tolist() == [101]  # 402 … 406
    valid = np.ones(200, bool)
    valid[8] = False
    _, kept = at_rate(np.ones(200), 20.0, 25.0, 250, valid)
    assert np.flatnonzero(~kept).tolist() == [9, 10, 11]  # 7.2, 8.0 and 8.8, but not 6.4 nor 9.6


def test_channels_and_segments_are_resampled_by_themselves():
    x, valid = torch.randn(3, 90, 2), torch.rand(3, 90, 2) > 0.1
    valid[1, 40:], valid[2] = False, False
    step = torch.tensor([0.8, 2.0, 4.0])
    values, kept = resample(x, valid, step, 120)
    for b in range(3):
        last = 1 + int(valid[b].any(1).nonzero().max()) if valid[b].any() else 1
        alone, kept_alone = resample(x[b : b + 1, :last], valid[b : b + 1, :last], step[b : b + 1], 120)
        assert torch.equal(values[b], alone[0])
        assert torch.equal(kept[b], kept_alone[0])
    assert not kept[2].any()
    assert (values[2] == 0).all()
