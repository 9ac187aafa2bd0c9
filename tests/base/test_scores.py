"""Scores against scikit-learn's, and intervals that follow the subjects."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from aar_dist.base.metrics import (
    classification_scores,
    confusion_matrix,
    regression_scores,
    scores_of,
)

CLASSES = ("a", "b", "c", "d")
labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(labels)
def test_scores_are_those_of_scikit_learn(pairs):
    y_true, y_pred = np.array(pairs).T
    got = classification_scores(y_true, y_pred, CLASSES)
    present = np.unique(y_true)
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y_true, y_pred))
    assert got["balanced_accuracy"] == pytest.approx(sk.recall_score(y_true, y_pred, labels=present, average="macro"))
    f1 = sk.f1_score(y_true, y_pred, labels=present, average="macro", zero_division=0)
    assert got["macro_f1"] == pytest.approx(f1)
    assert got["confusion"] == sk.confusion_matrix(y_true, y_pred, labels=range(4)).tolist()
    assert got["absent"] == [CLASSES[k] for k in range(4) if k not in present]
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        y_true, y_pred, labels=range(4), zero_division=0
    )
    for k, name in enumerate(CLASSES):
        of = got["per_class"][name]
        assert of["support"] == support[k]
        assert of["precision"] == pytest.approx(precision[k])
        assert of["recall"] == (pytest.approx(recall[k]) if support[k] else None)
        assert of["f1"] == (pytest.approx(f1[k]) if support[k] else None)
    json.dumps(got, allow_nan=False)


@given(labels)
def test_an_absent_class_that_is_predicted_changes_no_denominator(pairs):
    y_true, y_pred = np.array(pairs).T
    wider = classification_scores(y_true, y_pred, (*CLASSES, "never", "nor this"))
    narrow = classification_scores(y_true, y_pred, CLASSES)
    assert {n: wider[n] for n in ("accuracy", "balanced_accuracy", "macro_f1")} == {
        n: narrow[n] for n in ("accuracy", "balanced_accuracy", "macro_f1")
    }


def test_a_wrong_label_is_named():
    with pytest.raises(ValueError, match="labels -1 to 1, expected 0 to 1"):
        confusion_matrix(np.array([0, -1, 1]), np.array([0, 0, 0]), 2)
    with pytest.raises(ValueError, match="of the same length"):
        confusion_matrix(np.array([0, 1]), np.array([0]), 2)


def test_scores_of_many_matrices_at_once():
    rng = np.random.default_rng(2)
    many = rng.integers(0, 5, (7, 3, 3)) * (rng.random((7, 3, 1)) < 0.8)
    together = scores_of(many)
    for i, one in enumerate(many):
        for name, value in scores_of(one).items():
            np.testing.assert_array_equal(together[name][i], value)
    assert np.isnan(scores_of(np.zeros((3, 3), int))["accuracy"])


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=40))
def test_regression_scores_are_those_of_scikit_learn(pairs):
    t, p = np.array(pairs).T
    got = regression_scores(t, p)
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(t, p))
    assert got["rmse"] == pytest.approx(sk.root_mean_squared_error(t, p))
    if t.std() > 1e-3:
        assert got["r2"] == pytest.approx(sk.r2_score(t, p))
    if min(t.std(), p.std()) > 1e-3:
        assert got["r"] == pytest.approx(np.corrcoef(t, p)[0, 1], abs=1e-6)
    assert regression_scores(np.ones(3), np.arange(3.0))["r"] is None
    with pytest.raises(ValueError, match="not empty"):
        regression_scores(np.ones(0), np.ones(0))
