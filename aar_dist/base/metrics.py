"""Scores of predictions.

    y_true, y_pred (n,) -> confusion (K, K) -> accuracy, balanced accuracy, macro F1, per class

How sure they are over subjects is told by :mod:`aar_dist.base.stats`.

A class that does not occur in ``y_true`` has no recall: it is left out of balanced accuracy and macro F1, whatever was
predicted, and named under ``absent``. So the classes averaged over depend on the data alone and not on the model. What
was wrongly predicted as such a class still costs the recall of its own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SCORES = ("accuracy", "balanced_accuracy", "macro_f1")
ERRORS = ("mae", "rmse", "r", "r2")
MAIN = ("macro_f1", "mae")
"""The one score where there is room for one: it counts every class alike, and both kinds of mistakes."""
LOWER_IS_BETTER = ("mae", "rmse")


def confusion_matrix(y_true: NDArray[Any], y_pred: NDArray[Any], n_classes: int) -> Ints:
    """(K, K) counts, rows are true classes. Raises ``ValueError`` for a label outside 0 … K - 1."""
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.shape != y_pred.shape or y_true.ndim != 1:
        raise ValueError(f"labels of shapes {y_true.shape} and {y_pred.shape}, expected two of the same length")
    for y in (y_true, y_pred):
        if y.size and not (y.min() >= 0 and y.max() < n_classes):
            raise ValueError(f"labels {y.min()} to {y.max()}, expected 0 to {n_classes - 1}")
    pairs = y_true.astype(np.int64) * n_classes + y_pred.astype(np.int64)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def scores_of(confusion: NDArray[Any]) -> dict[str, Floats]:
    """Scores of confusion matrices (…, K, K): overall ones (…), per class (…, K); NaN where undefined.

    The precision and F1 of a class that is never predicted are 0.
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    support, predicted = confusion.sum(-1), confusion.sum(-2)
    present = support > 0
    recall = _ratio(hit, support, np.nan)
    f1 = np.where(present, _ratio(2 * hit, support + predicted, 0.0), np.nan)
    return {
        "accuracy": _ratio(hit.sum(-1), support.sum(-1), np.nan),
        "balanced_accuracy": _mean_where(present, recall),
        "macro_f1": _mean_where(present, f1),
        "precision": _ratio(hit, predicted, 0.0),
        "recall": recall,
        "f1": f1,
    }


def classification_scores(y_true: NDArray[Any], y_pred: NDArray[Any], classes: Sequence[str]) -> dict[str, Any]:
    """All scores, ready for JSON (None where undefined).

    Args:
        y_true: (n,) integers, index into ``classes``.
        y_pred: (n,) likewise.
        classes: Names, in the order of their numbers; all of them are in the confusion matrix.
    """
    confusion = confusion_matrix(y_true, y_pred, len(classes))
    scores, support = scores_of(confusion), confusion.sum(1)
    per_class = {
        name: {key: _plain(scores[key][k]) for key in ("precision", "recall", "f1")} | {"support": int(support[k])}
        for k, name in enumerate(classes)
    }
    return {
        **{name: _plain(scores[name]) for name in SCORES},
        "n": int(support.sum()),
        "absent": [name for name, n in zip(classes, support, strict=True) if n == 0],
        "per_class": per_class,
        "classes": list(classes),
        "confusion": confusion.tolist(),
    }


def regression_scores(y_true: NDArray[Any], y_pred: NDArray[Any]) -> dict[str, Any]:
    """MAE, RMSE, Pearson's r (None where either is constant) and R² (the share of the target's
    variance that is told; None of a constant one), in the unit of the target, ready for JSON."""
    t, p = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    if t.shape != p.shape or t.ndim != 1 or not t.size:
        raise ValueError(f"targets of shapes {t.shape} and {p.shape}, expected two of the same length, not empty")
    found = regression_of(np.array([[w.sum() for w in moments(t, p, t.mean(), p.mean())]]))
    return {name: _plain(values[0]) for name, values in found.items()} | {"n": len(t)}


def moments(t: NDArray[Any], p: NDArray[Any], t_centre: float, p_centre: float) -> list[Floats]:
    """What the scores of a target are sums of, each (n,). r does not change with the centres, and its sums keep their
    digits if these are near the means."""
    t, p = np.asarray(t, np.float64), np.asarray(p, np.float64)
    error = p - t
    t, p = t - t_centre, p - p_centre
    return [np.ones_like(t), np.abs(error), error**2, t, p, t * t, p * p, t * p]


def regression_of(sums: Floats) -> dict[str, Floats]:
    """Scores of sums (…, 8) of the moments; r is NaN where targets or predictions are constant."""
    n, off, square, t, p, tt, pp, tp = np.moveaxis(sums, -1, 0)
    vt, vp = tt - t * t / n, pp - p * p / n
    # Sums of squares lose digits: what is left of a constant is rounding.
    varies = (vt > 1e-9 * np.maximum(tt, 1e-300)) & (vp > 1e-9 * np.maximum(pp, 1e-300))
    spread = np.where(vt > 1e-9 * np.maximum(tt, 1e-300), vt, np.nan)
    r = np.where(varies, (tp - t * p / n) / np.sqrt(np.where(varies, vt * vp, 1.0)), np.nan)
    return {"mae": off / n, "rmse": np.sqrt(square / n), "r": np.clip(r, -1, 1), "r2": 1 - square / spread}


def _ratio(above: NDArray[Any], below: NDArray[Any], otherwise: float) -> Floats:
    return np.where(below > 0, above / np.maximum(below, 1), otherwise)


def _mean_where(mask: NDArray[np.bool_], values: Floats) -> Floats:
    """Mean over the last axis of the values in the mask; NaN where there are none."""
    return _ratio(np.where(mask, values, 0.0).sum(-1), mask.sum(-1), np.nan)


def _plain(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
