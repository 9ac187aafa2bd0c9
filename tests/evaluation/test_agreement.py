"""Labels of long recordings, beside what a model said of their windows."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from aar_dist.evaluation import predict_agreement
from aar_dist.evaluation.predict_agreement import Agreement, mean_target
from aar_dist.evaluation.predict_windows import Said
from aar_dist.recordings.contract import read_recording
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.writer import label_runs
from aar_dist.stream.windows import WindowConfig, target_of

RATE_HZ = 25.0


def predictor(classes=None):
    """As much of a model as the comparison asks for: windows of 10 s."""
    return SimpleNamespace(
        classes=classes, duration_s=10.0, training_hop_s=10.0, steps=lambda hop_s: 1, windows=WindowConfig(),
        samples=lambda rate_hz: round(10 * rate_hz), trained_on=frozenset(),
    )  # fmt: skip


def recorded(root, target, classes=None):
    acc = SensorData(values=np.zeros((len(target), 1), "<i2"), rate_hz=RATE_HZ, units="g", axes=("x",), scale=1.0)
    about = {"dataset": "d", "species": "human", "subject": "a", "sensors": {"acc": acc}, "label": target}
    (path,) = dataset_to_hdf5(root / "d", **about, classes=classes)
    return read_recording(path)


def said(n: int, output) -> Said:
    start = np.arange(len(output)) * 250
    return Said(
        start, start + 250, np.asarray(output, np.float32), np.ones(len(start), bool), np.array([[0, n]]), RATE_HZ
    )


def test_days_of_a_target_need_little_memory(tmp_path):
    n = 2_000_000  # 22 hours; a dict a sample would be 800 MB
    target = np.random.default_rng(0).normal(70, 5, n)
    target[5000:5400] = np.nan
    recording = recorded(tmp_path, target)
    agreement = Agreement(predictor(), 10.0)
    made = said(n, np.zeros((n // 250, 1)))
    tracemalloc.start()
    agreement.add(recording, made, n)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
    whole = target.reshape(-1, 250)
    np.testing.assert_allclose(agreement.true[0], whole.mean(1)[~np.isnan(whole).any(1)], rtol=1e-6)
    assert len(agreement.true[0]) == n // 250 - 2


def test_a_mean_target_is_that_of_training(tmp_path):
    rng = np.random.default_rng(1)
    target = np.repeat(rng.normal(size=400), rng.integers(1, 5, 400))
    target[rng.random(len(target)) < 0.2] = np.nan
    recording = recorded(tmp_path, target)
    start_s = np.sort(rng.uniform(0, len(target) / RATE_HZ, 50)) - 1
    runs = label_runs(target, 0, RATE_HZ, recording, None)
    wanted = target_of(runs, (), start_s, start_s + 3.3)
    for begin in (0, 7):
        inside = start_s * RATE_HZ >= begin
        got = mean_target(target[begin:], begin, RATE_HZ, start_s[inside], start_s[inside] + 3.3)
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one, other[inside], atol=1e-12)


def test_labels_are_compared_under_the_names_that_the_model_was_taught(tmp_path):
    """Up and down are one class of the model: a window of both is whole, and no class of it is unknown but `fly`."""
    label = np.repeat(np.array([0, 1, 2, 3], np.int16), 375)
    recording = recorded(tmp_path, label, classes=("up", "down", "rest", "fly"))
    taught = predictor(("rest", "walk"))
    taught.windows = WindowConfig(map={"walk": ["up", "d/down"], "rest": ["rest"]})
    agreement = Agreement(taught, 10.0)
    agreement.add(recording, said(len(label), np.eye(2)[[1, 1, 1, 0, 0, 0]]), len(label))
    assert agreement.scores()["accuracy"] == 1
    assert np.concatenate(agreement.true).tolist() == [1, 1, 1, 0]
    assert agreement.unknown == {"fly"}


@pytest.mark.parametrize("block", [1, 300, 1000, 1 << 18])
def test_stretches_say_what_the_whole_does(tmp_path, monkeypatch, block):
    monkeypatch.setattr(predict_agreement, "BLOCK", block)
    rng = np.random.default_rng(2)
    label = np.repeat(rng.integers(-1, 3, 40), 125).astype(np.int16)
    recording = recorded(tmp_path, label, classes=("rest", "walk", "fly"))
    agreement = Agreement(predictor(("rest", "walk")), 10.0)
    agreement.add(recording, said(len(label), np.eye(2)[rng.integers(0, 2, len(label) // 250)]), len(label))
    pairs = label.reshape(-1, 250)
    plain = (pairs == pairs[:, :1]).all(1) & np.isin(pairs[:, 0], (0, 1))
    assert agreement.true[0].tolist() == pairs[plain, 0].tolist()
    assert agreement.unknown == {"fly"}
