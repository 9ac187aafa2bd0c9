"""Baselines in the folds of the network: every window is said once, by what never saw its animal."""

import json

import numpy as np
import pytest

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation import in_folds
from aar_dist.evaluation.arrays import Windows, window_arrays
from aar_dist.evaluation.baselines import Predicted
from aar_dist.evaluation.folds import folds_of
from aar_dist.evaluation.in_folds import baseline_in_fold
from aar_dist.stream.config import DataConfig
from aar_dist.stream.windows import WindowConfig, open_windows
from aar_dist.training.finetuning.folds import Fold, Folds
from aar_dist.training.finetuning.predictions import write


@pytest.fixture(scope="module")
def labelled(shard_set):
    data = DataConfig(shards=[str(shard_set)], segment_duration=1.0)
    source, table = open_windows(data, WindowConfig())
    return table, window_arrays(source, table, data), folds_of(table, 4, shards=source.identity)


def test_a_baseline_sees_no_animal_it_is_asked_about(labelled, monkeypatch):
    table, windows, folds = labelled
    asked = []

    def spy(train, test, n_classes, **more):
        asked.append((train.values, test.values, n_classes, more))
        return Predicted(label=test.label, probability=None)

    monkeypatch.setattr(in_folds, "baseline", lambda name: spy)
    said = [baseline_in_fold("any", windows, table, folds, k, seed=5) for k in range(4)]
    assert sorted(np.concatenate([s.table.subject for s in said])) == sorted(table.subject)
    for k, (train, test, n_classes, more) in enumerate(asked):
        mine = np.isin(table.subject, folds.fold(k).test)
        np.testing.assert_array_equal(test, windows.values[mine])
        np.testing.assert_array_equal(train, windows.values[~mine])
        assert (n_classes, more) == (3, {"class_weight": None, "seed": 5})
        np.testing.assert_array_equal(said[k].predicted, table.label[mine])
        assert set(np.unique(said[k].said)) == {0, 1}


@pytest.mark.parametrize("name", ["majority", "logistic"])
def test_the_answer_is_written_as_a_networks(labelled, name, tmp_path):
    table, windows, folds = labelled
    made = baseline_in_fold(name, windows, table, folds, 2, class_weight="balanced")
    write(made, tmp_path, 2, {"method": name})
    y_true, y_pred, y_prob = (np.load(tmp_path / f"y_{a}_fold_2.npy") for a in ("true", "pred", "prob"))
    np.testing.assert_array_equal(y_true, folds.select(table, 2, "test").label)
    np.testing.assert_allclose(y_prob.sum(1), 1, rtol=1e-5)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx((y_true == y_pred).mean())
    assert metrics["method"] == name


def test_what_has_no_answer_is_told(labelled):
    table, windows, folds = labelled
    with pytest.raises(ConfigError, match="fold 9: there are 4"):
        baseline_in_fold("majority", windows, table, folds, 9)
    other = Folds(folds=(Fold(train=("herd/1",), validation=(), test=(str(table.subject[0]),)),))
    with pytest.raises(ConfigError, match="fold 0 has no window on its train side"):
        baseline_in_fold("majority", windows, table, other, 0)
    target = table.select(np.arange(3))
    target = type(target)(**{**vars(target), "classes": None})
    none = Windows(values=np.zeros((3, 1, 1)), valid=np.zeros((3, 1, 1)), rate_hz=np.ones(3), label=np.zeros(3))
    with pytest.raises(ConfigError, match="majority is for classes, but the labels of these windows are targets"):
        baseline_in_fold("majority", none, target, folds, 0)
    with pytest.raises(ConfigError, match="ridge is for targets, but the labels of these windows are classes"):
        baseline_in_fold("ridge", windows, table, folds, 0)


@pytest.mark.parametrize("name", ["mean", "ridge"])
def test_targets_have_baselines_too(labelled, name):
    table, windows, folds = labelled
    target = (3 * windows.values.mean(axis=(1, 2)) + 70).astype(np.float32)
    table = type(table)(**{**vars(table), "classes": None, "label": target})
    windows = Windows(**{**vars(windows), "label": target})
    said = baseline_in_fold(name, windows, table, folds, 1)
    assert set(said.table.subject.tolist()) == set(folds.fold(1).test)
    error = np.abs(said.predicted - said.table.label).mean()
    spread = np.abs(said.table.label - said.table.label.mean()).mean()
    assert error < (0.1 if name == "ridge" else 1.1) * spread
    assert said.scores()["mae"] == pytest.approx(error)
