"""How good a method is with few subjects to learn from.

FoldJobs of several fractions -> scores of each method at each fraction, over the same test windows
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aar_dist.base import storage
from aar_dist.evaluation.fold_jobs import FoldJob
from aar_dist.evaluation.review.answers import Classes, plain, read_answers, together
from aar_dist.evaluation.review.scoring import with_intervals
from aar_dist.training.finetuning.folds import Fold
from aar_dist.training.finetuning.predictions import METRICS


def few_shot(
    jobs: Sequence[FoldJob], classes: Classes, repeats: int = 1, folds: Sequence[Fold] = ()
) -> list[dict[str, Any]]:
    """A row for each method and fraction whose folds are all done; empty where there is one fraction only.

    Args:
        jobs: All of them, of all fractions.
        classes: Names; None for a target.
        repeats: Deals of the subjects.
        folds: Who trains in each, for methods that do not say how many subjects they were given.
    """
    if len({job.fraction for job in jobs}) < 2:
        return []
    groups: dict[tuple[str, float], list[FoldJob]] = {}
    for job in jobs:
        groups.setdefault((job.method, job.fraction), []).append(job)
    rows = [_row(of, classes, repeats, folds) for of in groups.values() if all(job.done for job in of)]
    order = list(dict.fromkeys(job.method for job in jobs))
    return sorted(rows, key=lambda row: (order.index(row["method"]), row["fraction"]))


def _row(jobs: Sequence[FoldJob], classes: Classes, repeats: int, folds: Sequence[Fold]) -> dict[str, Any]:
    said = together(read_answers(jobs, classes, repeats))
    return {
        "method": jobs[0].method,
        "kind": jobs[0].kind,
        "fraction": jobs[0].fraction,
        "n_subjects": plain(np.mean([_trained_on(job, folds) for job in jobs])),
        "scores": with_intervals(said),
    }


def _trained_on(job: FoldJob, folds: Sequence[Fold]) -> float:
    """Subjects that a run learned from: as it says itself, or, of one that does not say, by its fold; a baseline learns
    from the validation subjects as well, unless it is to learn from few."""
    told: Mapping[str, Any] = storage.read_json(job.folder / METRICS)
    if "trained_on" in told:
        return float(told["trained_on"]["subjects"])
    if "split" in told:
        return float(len(told["split"]["train"]))
    if not folds:
        return np.nan
    fold = folds[int(job.fold)]
    if job.fraction == 1:
        return float(len(fold.train) + (len(fold.validation) if job.kind == "baseline" else 0))
    return float(max(1, round(job.fraction * len(fold.train))))
