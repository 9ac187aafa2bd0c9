"""Scores of a method with their intervals over subjects: overall, of each class, of each subject."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from aar_dist.base.metrics import scores_of
from aar_dist.base.stats.intervals import SHARE, interval, scale_of
from aar_dist.base.stats.tallies import Tallies, drawn
from aar_dist.evaluation.review.answers import Predicted, plain


def with_intervals(of: Predicted) -> dict[str, dict[str, Any]]:
    """Value and 95 % interval of each score."""
    n = len(of.subjects)
    return {
        name: {"value": of.scores[name], **interval(of.scores[name], of.drawn[name], n, scale_of(name))}
        for name in of.names
    }


def per_subject(of: Predicted, n: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Each subject alone; ``n`` are its windows, each counted once."""
    alone = {name: of.of([name]) for name in of.subjects}
    return {name: {"n": n[name], **{score: one.scores.get(score) for score in of.names}} for name, one in alone.items()}


def per_class(of: Predicted, support: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 with its interval, AUROC where there are probabilities, and how many subjects carry it.

    Args:
        of: With classes.
        support: Windows of each class, each counted once.
    """
    assert of.classes is not None
    tallies = of.tallies
    each = Tallies(tallies.subjects, tallies.sums, lambda sums: {"f1": scores_of(sums)["f1"]})
    draws, carried = drawn(each)["f1"], (tallies.sums.sum(-1) > 0).sum(0)
    made = {}
    for k, name in enumerate(of.classes):
        told = dict(of.scores["per_class"][name])
        limits = interval(told["f1"], draws[:, k], len(of.subjects), SHARE)
        made[name] = told | {
            "f1_low": limits["low"],
            "f1_high": limits["high"],
            "support": support[name],
            "subjects": int(carried[k]),
        }
    return made


def worst(subjects: Mapping[str, Mapping[str, Any]], score: str, most: int = 3, *, lower_is_better: bool) -> list[str]:
    """Those that a method is least good at, the worst first; none that it is best at."""
    known = [(plain(np.nan if of[score] is None else of[score]), name) for name, of in subjects.items()]
    ranked = sorted((value if not lower_is_better else -value, name) for value, name in known if value is not None)
    return [name for value, name in ranked[:most] if value < ranked[-1][0]]
