"""The learning rate of the first system."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aar_dist.training.schedule import noam


def test_published_formula():
    assert noam(4000, d_model=128, warmup_steps=4000) == pytest.approx(128**-0.5 * 4000**-0.5)
    assert noam(1, d_model=128, warmup_steps=4000, factor=2.0) == pytest.approx(2 * 128**-0.5 * 4000**-1.5)
    assert noam(16000, d_model=128, warmup_steps=4000) == pytest.approx(128**-0.5 / 16000**0.5)


@given(st.integers(1, 10**6), st.integers(1, 10**5), st.integers(1, 4096))
def test_it_rises_to_the_end_of_the_warmup_and_falls_after(step, warmup, d):
    def rate(s):
        return noam(s, d_model=d, warmup_steps=warmup)

    assert 0 < rate(step) <= rate(warmup)
    assert (rate(step + 1) > rate(step)) == (step < warmup)


def test_steps_count_from_one():
    with pytest.raises(ValueError, match="from 1"):
        noam(0, d_model=1, warmup_steps=1)
