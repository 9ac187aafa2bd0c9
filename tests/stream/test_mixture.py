"""The mixture: the first system's worked example, and what each rule promises."""

from hypothesis import given
from hypothesis import strategies as st

from aar_dist.stream.config import MixtureConfig
from aar_dist.stream.mixture import TEMPERATURE_CAP, segments_per_epoch

HOUR = 3600.0


def test_the_worked_example_of_the_first_system():
    """23 h at 25 Hz and 500 h at 100 Hz, half of each for training, 20 s segments, oversampled 4x, imbalance 5."""
    mixture = MixtureConfig(oversampling_factor=4.0, max_dataset_imbalance=5.0)
    assert segments_per_epoch([11.5 * HOUR, 250 * HOUR], 20.0, mixture) == [8280, 41400]


seconds = st.lists(st.floats(10, 1e7), min_size=1, max_size=6)


@given(seconds)
def test_capped_keeps_the_imbalance(seconds):
    n = segments_per_epoch(seconds, 1.0, MixtureConfig())
    assert max(n) <= 4.0 * min(n) + 4
    assert n[seconds.index(min(seconds))] == int(min(seconds) * 5 + 1e-6)


@given(seconds)
def test_proportional_and_uniform(seconds):
    n = segments_per_epoch(seconds, 1.0, MixtureConfig(rule="proportional"))
    assert all(abs(a - 5 * s) <= 1 for a, s in zip(n, seconds, strict=True))
    n = segments_per_epoch(seconds, 1.0, MixtureConfig(rule="uniform"))
    assert max(n) - min(n) <= 1


@given(seconds)
def test_temperature_is_capped_and_keeps_the_total(seconds):
    n = segments_per_epoch(seconds, 0.01, MixtureConfig(rule="temperature"))
    rate = [a / s for a, s in zip(n, seconds, strict=True)]
    assert max(rate) / min(rate) <= TEMPERATURE_CAP * 1.02
    assert abs(sum(n) * 0.01 - 5 * sum(seconds)) <= len(n) * 0.01 + 1e-6 * sum(seconds)


def test_temperature_follows_the_square_root():
    a, b = segments_per_epoch([100.0, 400.0], 0.01, MixtureConfig(rule="temperature"))
    assert abs(b / a - 2.0) < 0.01


def test_no_data_set_vanishes():
    assert segments_per_epoch([0.5, 1000.0], 10.0, MixtureConfig()) == [1, 1]
