"""What the windows of each subject add up to, so that the scores of any choice of subjects are a sum away.

    windows -> sums (S, …) of each subject -> times (…, S) each is drawn -> scores (…)

Of classes the sums are confusion matrices (S, K, K), of targets moments (S, 8), of any mean a sum and a count (S, 2).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.hashing import below_np, hash_np, word
from aar_dist.base.metrics import SCORES, confusion_matrix, moments, regression_of, scores_of

Floats = NDArray[np.float64]
Scores = Mapping[str, Floats]
DRAWS, SEED = 2000, 578


class Weighs(Protocol):
    """Scores of subjects that count as often as one likes."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """S names, sorted."""

    def weighted(self, times: NDArray[Any]) -> Scores:
        """Scores (…) where subject s counts ``times[…, s]`` times."""


@dataclass(frozen=True)
class Tallies:
    """Sums over the windows of each subject."""

    subjects: tuple[str, ...]
    sums: Floats
    """(S, …) whole numbers where counts are added."""
    score: Callable[[Floats], Scores]
    """Sums (…, of one subject) -> scores (…)."""
    copies: int = 1
    """Times each window was predicted: seeds times repeats."""

    def weighted(self, times: NDArray[Any]) -> Scores:
        """Scores (…) of ``times`` (…, S)."""
        return self.score(np.tensordot(np.asarray(times, float), self.sums, axes=1))

    @cached_property
    def whole(self) -> Scores:
        """Scores of all subjects together."""
        return self.weighted(np.ones(len(self.subjects)))

    @cached_property
    def each(self) -> Scores:
        """(S,) scores of every subject alone."""
        return self.weighted(np.eye(len(self.subjects)))


def class_tallies(
    subject: NDArray[Any], y_true: NDArray[Any], y_pred: NDArray[Any], n_classes: int, copies: int = 1
) -> Tallies:
    """Of windows with classes; see :func:`aar_dist.base.metrics.scores_of` for what a score leaves out.

    Args:
        subject: (n,) names.
        y_true: (n,) classes.
        y_pred: (n,) likewise.
        n_classes: K.
        copies: Times each window stands in them.
    """
    names, of = np.unique(np.asarray(subject), return_inverse=True)
    each = [confusion_matrix(y_true[of == s], y_pred[of == s], n_classes) for s in range(len(names))]
    return Tallies(_plain(names), np.stack(each).astype(float), _class_scores, copies)


def target_tallies(subject: NDArray[Any], y_true: NDArray[Any], y_pred: NDArray[Any], copies: int = 1) -> Tallies:
    """Of windows with targets. The sums of two methods are about the same centre, so that they may be exchanged."""
    centre = float(np.asarray(y_true, np.float64).mean())
    names, sums = _summed(subject, moments(y_true, y_pred, centre, centre))
    return Tallies(names, sums, regression_of, copies)


def mean_tallies(subject: NDArray[Any], **values: NDArray[Any]) -> Tallies:
    """Of quantities whose score is their mean over windows; ``values`` (n,) by name."""
    columns = [np.asarray(of, np.float64) for of in values.values()]
    names, sums = _summed(subject, [*columns, np.ones(len(subject))])
    return Tallies(names, sums, lambda of: {name: of[..., k] / of[..., -1] for k, name in enumerate(values)})


def drawn(of: Weighs, n: int = DRAWS, seed: int = SEED) -> Scores:
    """Each score, (n,), when as many subjects as there are, are drawn with replacement n times.

    The draws depend on the number of subjects and the seed alone: two methods tested on the same subjects can be
    subtracted draw by draw.
    """
    return of.weighted(times_drawn(len(of.subjects), n, seed))


def times_drawn(n_subjects: int, n: int, seed: int) -> NDArray[np.int64]:
    """(n, subjects) how often each is drawn."""
    draw = np.arange(n)[:, None]
    chosen = below_np(hash_np(seed, word("bootstrap"), draw, np.arange(n_subjects)), n_subjects)
    times: NDArray[np.int64] = np.bincount((draw * n_subjects + chosen).ravel(), minlength=n * n_subjects)
    return times.reshape(n, n_subjects)


def without_each(of: Weighs) -> Scores:
    """(S,) each score without one of the subjects."""
    return of.weighted(1.0 - np.eye(len(of.subjects)))


def _class_scores(confusion: Floats) -> Scores:
    found = scores_of(confusion)
    return {name: found[name] for name in SCORES}


def _summed(subject: NDArray[Any], columns: list[Floats]) -> tuple[tuple[str, ...], Floats]:
    names, of = np.unique(np.asarray(subject), return_inverse=True)
    return _plain(names), np.stack([np.bincount(of, weights=w, minlength=len(names)) for w in columns], axis=1)


def _plain(names: NDArray[Any]) -> tuple[str, ...]:
    return tuple(str(name) for name in names)
