"""Scores of predictions, and how sure they are over subjects.

    y_true, y_pred (n,) -> confusion (K, K) -> accuracy, balanced accuracy, macro F1, per class
    confusion of each subject -> whole subjects drawn again and again -> interval

A class that does not occur in ``y_true`` has no recall: it is left out of balanced accuracy and macro F1, whatever was
predicted, and named under ``absent``. So the classes averaged over depend on the data alone and not on the model. What
was wrongly predicted as such a class still costs the recall of its own.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.hashing import below_np, hash_np, word

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Score = Literal["accuracy", "balanced_accuracy", "macro_f1"]
SCORES: tuple[Score, ...] = ("accuracy", "balanced_accuracy", "macro_f1")
LEVEL = 0.95


class Interval(NamedTuple):
    """A score over resampled subjects."""

    mean: float
    low: float
    high: float


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


def bootstrap_over_subjects(
    subject: NDArray[Any],
    y_true: NDArray[Any],
    y_pred: NDArray[Any],
    classes: Sequence[str],
    score: Score,
    n: int = 2000,
    seed: int = 578,
) -> Interval:
    """Mean and 95 % interval of a score when whole subjects are drawn with replacement, n times.

    Windows of one animal are alike, so it is animals that are drawn. One subject alone has no interval: NaN.

    Args:
        subject: (n_windows,) names.
        y_true: (n_windows,) index into ``classes``.
        y_pred: (n_windows,) likewise.
    """
    names, of = np.unique(np.asarray(subject), return_inverse=True)
    k = len(classes)
    each = np.stack([confusion_matrix(y_true[of == s], y_pred[of == s], k) for s in range(len(names))])
    place = np.arange(len(names))
    drawn = below_np(hash_np(seed, word("bootstrap"), np.arange(n)[:, None], place), len(names))
    times = (drawn[:, :, None] == place).sum(1)  # (n, subjects)
    values = scores_of(np.tensordot(times, each, axes=1))[score]
    if len(names) < 2:
        return Interval(float(values.mean()), np.nan, np.nan)
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def regression_scores(y_true: NDArray[Any], y_pred: NDArray[Any]) -> dict[str, Any]:
    """MAE, RMSE and Pearson's r (None where either is constant), in the unit of the target, ready for JSON."""
    t, p = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    if t.shape != p.shape or t.ndim != 1 or not t.size:
        raise ValueError(f"targets of shapes {t.shape} and {p.shape}, expected two of the same length, not empty")
    error = p - t
    spread = float(np.sqrt(((t - t.mean()) ** 2).sum() * ((p - p.mean()) ** 2).sum()))
    r = float(((t - t.mean()) * (p - p.mean())).sum() / spread) if spread > 0 else None
    return {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean())), "r": r, "n": len(t)}


def _ratio(above: NDArray[Any], below: NDArray[Any], otherwise: float) -> Floats:
    return np.where(below > 0, above / np.maximum(below, 1), otherwise)


def _mean_where(mask: NDArray[np.bool_], values: Floats) -> Floats:
    """Mean over the last axis of the values in the mask; NaN where there are none."""
    return _ratio(np.where(mask, values, 0.0).sum(-1), mask.sum(-1), np.nan)


def _plain(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
