"""The simple methods: their inputs are the stream's windows, their answers those of a plain computation."""

import sys
from collections import Counter
from itertools import pairwise

import h5py
import numpy as np
import pytest

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.arrays import Windows, batches_once, window_arrays
from aar_dist.evaluation.baselines import available, baseline, logistic, majority, minirocket
from aar_dist.evaluation.penalty import chosen_strength
from aar_dist.evaluation.statistics import NAMES, features
from aar_dist.stream.config import DataConfig
from aar_dist.stream.windows import WindowConfig, open_windows, window_stream

RATE = 25.0


@pytest.fixture(scope="module")
def data(shard_set) -> DataConfig:
    return DataConfig(shards=[str(shard_set)], segment_duration=0.5)


def waves(n: int, seed: int, *, length: int = 50, classes: int = 3) -> Windows:
    """Windows of one tone a class, of any phase and size, in noise; the third channel is absent."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n)
    t = np.arange(length) / RATE
    tone = np.sin(2 * np.pi * (1 + 2 * label[:, None]) * t + rng.uniform(0, 6, (n, 1))) * rng.uniform(1, 2, (n, 1))
    values = np.zeros((n, length, 3), np.float32)
    values[..., 0], values[..., 1] = tone, rng.normal(size=(n, length))
    values += 0.2 * rng.normal(size=values.shape)
    valid = np.ones(values.shape, bool)
    valid[..., 2] = False
    values[..., 2] = 0
    return Windows(values=values, valid=valid, rate_hz=np.full(n, RATE), label=label)


def test_the_arrays_are_the_samples_of_the_recordings(recordings, data):
    source, table = open_windows(data, WindowConfig())
    table = table.select(np.random.default_rng(0).permutation(len(table))[:600])
    assert set(table.dataset) == {"slow", "fast"}
    windows = window_arrays(source, table, data)
    assert windows.values.shape == (600, 25, 3)
    assert windows.values.dtype == np.float32
    np.testing.assert_array_equal(windows.label, table.label)
    for i in range(0, 600, 7):
        with h5py.File(recordings / table.dataset[i] / f"{table.recording[i]}.hdf5") as file:
            n, first = round(0.5 * windows.rate_hz[i]), round(table.start_s[i] * windows.rate_hz[i])
            scale = np.float32(file["acc"].attrs.get("scale", 1.0))
            np.testing.assert_allclose(windows.values[i, :n], file["acc"][first : first + n] * scale, rtol=1e-6)
        assert windows.valid[i, :n].all()
        assert not windows.valid[i, n:].any()
        assert not windows.values[i, n:].any()
    part = windows.select(np.arange(600) < 5)
    assert (len(part), len(windows)) == (5, 600)


def test_every_window_comes_once(data):
    source, table = open_windows(data, WindowConfig())
    with window_stream(source, table, data, shuffle=False, origins=True) as stream:
        batches = list(batches_once(stream, 100))
    assert [len(b) for b in batches] == [100] * (len(table) // 100) + [len(table) % 100]
    assert all(len(b.origin) == len(b.duration_s) == len(b.label) == len(b) for b in batches)
    served = Counter((o.recording, round(o.start_s, 6)) for b in batches for o in b.origin)
    assert served == Counter(zip(table.recording.tolist(), table.start_s.round(6).tolist(), strict=True))


def plain(x, rate_hz: float) -> dict[str, float]:
    """The statistics of one channel, one by one."""
    if not len(x):
        return dict.fromkeys(NAMES, 0.0)
    centred = [v - x.mean() for v in x if v != x.mean()]
    return {
        "mean": x.mean(), "std": x.std(), "min": x.min(), "max": x.max(), "median": np.median(x),
        "q25": np.quantile(x, 0.25), "q75": np.quantile(x, 0.75), "energy": (x**2).mean(),
        "step": np.abs(np.diff(x)).mean() if len(x) > 1 else 0.0,
        "crossings_hz": sum(a * b < 0 for a, b in pairwise(centred)) / len(x) * rate_hz,
    }  # fmt: skip


def test_statistics_are_those_of_the_valid_samples():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(6, 40, 2)).astype(np.float32)
    length = [40, 17, 1, 0, 40, 30]
    valid = np.arange(40)[None, :, None] < np.array(length)[:, None, None]
    valid = np.repeat(valid, 2, axis=2)
    values[4] = np.round(values[4])
    values = np.where(valid, values, 0)
    rate_hz = np.array([10.0, 20, 30, 40, 50, 60])
    got = features(values, valid, rate_hz).reshape(6, 2, len(NAMES))
    for i in range(6):
        for c in range(2):
            expected = plain(values[i, : length[i], c].astype(np.float64), rate_hz[i])
            for name, value in expected.items():
                assert got[i, c, NAMES.index(name)] == pytest.approx(value, rel=1e-5, abs=1e-6), (i, name)
    assert features(values[:0], valid[:0], rate_hz[:0]).shape == (0, 2 * len(NAMES))


def test_the_spectrum_finds_the_tone():
    windows = waves(60, 1, length=100)
    got = features(windows.values, windows.valid, windows.rate_hz).reshape(60, 3, len(NAMES))
    np.testing.assert_allclose(got[:, 0, NAMES.index("peak_hz")], 1 + 2 * windows.label, atol=0.26)
    assert (got[:, 0, NAMES.index("peak_share")] > 0.5).all()
    assert (got[:, 1, NAMES.index("peak_share")] < 0.5).all()
    assert not got[:, 2].any(), "nothing was recorded there"
    assert np.isfinite(got).all()


def test_the_majority():
    train, test = waves(50, 1), waves(20, 2)
    train = train.select(np.r_[np.flatnonzero(train.label == 1), np.flatnonzero(train.label == 0)[:3]])
    answer = majority(train, test, 4)
    assert set(answer.label.tolist()) == {1}
    np.testing.assert_allclose(answer.probability, np.tile([3 / len(train), 1 - 3 / len(train), 0, 0], (20, 1)))


@pytest.mark.parametrize("name", ["logistic", "minirocket"])
def test_tones_are_told_apart(name):
    train, test = waves(150, 1), waves(90, 2)
    more = {"n_kernels": 500} if name == "minirocket" else {}
    answer = baseline(name)(train, test, 3, seed=3, **more)
    again = baseline(name)(train, test, 3, seed=3, **more)
    assert (answer.label == test.label).mean() > 0.95
    np.testing.assert_array_equal(answer.label, again.label)
    assert answer.label.dtype == np.int64
    if answer.probability is not None:
        np.testing.assert_allclose(answer.probability.sum(1), 1, rtol=1e-5)


def test_shorter_windows_are_padded():
    train, test = waves(150, 1), waves(90, 2, length=45)
    for one, other in ((train, test), (test, train)):
        assert (minirocket(one, other, 3, n_kernels=500).label == other.label).mean() > 0.9


@pytest.mark.parametrize("name", ["logistic", "minirocket"])
def test_a_class_that_the_train_side_lacks_is_never_said(name):
    train, test = waves(90, 1), waves(40, 2)
    train = Windows(**{**vars(train), "label": np.where(train.label == 1, 4, train.label)})
    more = {"n_kernels": 84} if name == "minirocket" else {}
    answer = baseline(name)(train, test, 6, **more)
    assert set(answer.label.tolist()) <= {0, 2, 4}
    if answer.probability is not None:
        assert answer.probability.shape == (40, 6)
        assert not answer.probability[:, [1, 3, 5]].any()
    alone = train.select(train.label == 4)
    assert set(baseline(name)(alone, test, 6, **more).label.tolist()) == {4}


def test_class_weights_help_the_rare_class():
    def noisy(seed):
        windows = waves(600, seed, classes=2)
        rng = np.random.default_rng(seed)
        loud = windows.values + 3.0 * rng.normal(size=windows.values.shape).astype(np.float32) * windows.valid
        return Windows(**{**vars(windows), "values": loud})

    train, test = noisy(1), noisy(2)
    train = train.select(np.r_[np.flatnonzero(train.label == 0), np.flatnonzero(train.label == 1)[:20]])
    said = [(logistic(train, test, 2, class_weight=w).label == 1).mean() for w in (None, "balanced")]
    assert said[1] > said[0] + 0.1


def test_the_penalty_is_chosen_by_subjects_left_out():
    """Each subject has a sign of its own beside what all have in common: only a strong penalty passes it over."""
    rng = np.random.default_rng(0)
    label, subject = np.tile([0, 1], 120), np.repeat(np.arange(6), 40)
    own = rng.normal(size=(6, 2, 40))[subject, label]
    common = 0.4 * (2 * label[:, None] - 1) + rng.normal(size=(240, 1))
    x = np.c_[common, own + 0.1 * rng.normal(size=own.shape)].astype("f4")
    assert chosen_strength(x, label, subject.astype(str), None, 1) < 0.1
    assert chosen_strength(common.astype("f4") * 9, label, subject.astype(str), "balanced", 1) > 0.0001
    assert chosen_strength(x, label, np.full(240, "alone"), None, 1) == 1.0


def test_what_cannot_be_done_is_told(monkeypatch):
    with pytest.raises(ConfigError, match="no baseline is called 'rocket'; there are majority, logistic, minirocket"):
        baseline("rocket")
    assert available(targets=False) == ["majority", "logistic", "minirocket"]
    assert available(targets=True) == ["mean", "ridge"]
    short = waves(20, 1, length=8)
    with pytest.raises(ConfigError, match="9 samples or more, these have 8"):
        minirocket(short, short, 3)
    monkeypatch.setitem(sys.modules, "aeon", None)
    monkeypatch.setitem(sys.modules, "aeon.transformations.collection.convolution_based", None)
    with pytest.raises(ConfigError, match=r"needs aeon .*aar_dist\[baselines\]"):
        minirocket(waves(20, 1), waves(20, 1), 3)
