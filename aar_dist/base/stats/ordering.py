"""AUROC of probabilities, with what it needs to be resampled over subjects.

    subject, y_true (n,), probability (n, K) -> U (K, S, S), right pairs of a window of the class, of subject s, and a
    window of another class, of subject s' -> AUROC where subject s counts t_s times, t U t / pairs

It is the share of right pairs, ties counting half (Mann & Whitney 1947); each class against the rest, and their mean.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.stats.tallies import Scores

Floats = NDArray[np.float64]
AUROC = "auroc"


@dataclass(frozen=True)
class Orderings:
    """Right pairs between any two subjects."""

    subjects: tuple[str, ...]
    right: Floats
    """(K, S, S)."""
    inside: Floats
    """(K, S) windows of the class."""
    outside: Floats
    """(K, S) windows of the others."""

    def weighted(self, times: NDArray[Any]) -> Scores:
        """The mean over classes, (…), of ``times`` (…, S); classes that lack a side are left out."""
        each = self.of_classes(times)
        known = ~np.isnan(each)
        n = known.sum(-1)
        return {AUROC: np.where(n > 0, np.where(known, each, 0.0).sum(-1) / np.maximum(n, 1), np.nan)}

    def of_classes(self, times: NDArray[Any]) -> Floats:
        """(…, K) of each class against the rest; NaN where it lacks a side."""
        t = np.asarray(times, float)
        right = np.stack([((t @ u) * t).sum(-1) for u in self.right], axis=-1)
        pairs = (t @ self.inside.T) * (t @ self.outside.T)
        found: Floats = np.where(pairs > 0, right / np.where(pairs > 0, pairs, 1.0), np.nan)
        return found


def auroc(y_true: NDArray[Any], probability: NDArray[Any]) -> float | None:
    """Of n windows: the mean over classes, None where no class has windows inside and outside of it."""
    alone = orderings(np.zeros(len(y_true), np.int64), y_true, probability)
    value = float(alone.weighted(np.ones(1))[AUROC]) if len(y_true) else np.nan
    return value if np.isfinite(value) else None


def orderings(subject: NDArray[Any], y_true: NDArray[Any], probability: NDArray[Any]) -> Orderings:
    """Count the pairs of n windows; see the module."""
    names, of = np.unique(np.asarray(subject), return_inverse=True)
    y_true, n = np.asarray(y_true), len(names)
    classes = range(probability.shape[1])
    inside = np.stack([np.bincount(of[y_true == k], minlength=n) for k in classes]).astype(float)
    right = np.stack([_right_pairs(of, y_true == k, probability[:, k], n) for k in classes])
    return Orderings(tuple(map(str, names)), right, inside, np.bincount(of) - inside)


def _right_pairs(of: NDArray[Any], positive: NDArray[np.bool_], score: NDArray[Any], n: int) -> Floats:
    """(S, S): windows of the class in rows, the others in columns."""
    mine, columns = score[positive], []
    for other in range(n):
        theirs = np.sort(score[~positive & (of == other)])
        below = (np.searchsorted(theirs, mine, "left") + np.searchsorted(theirs, mine, "right")) / 2
        columns.append(np.bincount(of[positive], weights=below, minlength=n))
    return np.stack(columns, axis=1)
