"""What all folds say together: from the predictions of every run to ``results.json``.

    runs/<method>/seed_<s>/fold_<k>/predictions_fold_k.parquet -> Predicted of each method -> scores, intervals,
    per class, per subject, confusion; every two methods compared on the same draws of subjects

A score is that of all test windows of all folds (and seeds) together; its interval is over subjects. Only a method
whose folds are all there has scores: others would be of other animals.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aar_dist.base.metrics import (
    ERRORS,
    SCORES,
    classification_scores,
    interval,
    regression_scores,
    resampled_scores,
)
from aar_dist.evaluation.fold_jobs import TIMING, FoldJob
from aar_dist.training.finetuning.predictions import METRICS

Classes = Sequence[str] | None


@dataclass(frozen=True)
class Predicted:
    """Every test window of every fold, for one seed or several; n of them."""

    subject: NDArray[np.str_]
    y_true: NDArray[Any]
    y_pred: NDArray[Any]
    classes: Classes

    def __len__(self) -> int:
        return len(self.subject)

    def of(self, subjects: Sequence[str]) -> "Predicted":
        """The windows of some subjects."""
        mask = np.isin(self.subject, list(subjects))
        return Predicted(self.subject[mask], self.y_true[mask], self.y_pred[mask], self.classes)

    @cached_property
    def scores(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        if self.classes is None:
            return regression_scores(self.y_true, self.y_pred)
        return classification_scores(self.y_true, self.y_pred, self.classes)

    @cached_property
    def resampled(self) -> dict[str, NDArray[np.float64]]:
        """Each score over draws of subjects."""
        return resampled_scores(self.subject, self.y_true, self.y_pred, self.classes)


def read_predictions(jobs: Sequence[FoldJob], classes: Classes) -> Predicted:
    """The predictions of several runs together."""
    tables = [pq.read_table(job.folder / f"predictions_fold_{job.fold}.parquet") for job in jobs]
    table = pa.concat_tables(tables)
    names = np.array(table["subject"].to_pylist(), np.str_)
    return Predicted(names, table["y_true"].to_numpy(), table["y_pred"].to_numpy(), classes)


def score_names(classes: Classes) -> tuple[str, ...]:
    """The scores of such labels."""
    return ERRORS if classes is None else SCORES


def gather(jobs: Sequence[FoldJob], classes: Classes, unseen: Sequence[str]) -> dict[str, Any]:
    """``methods``, ``comparisons`` and ``comparisons_unseen`` of results.json.

    Args:
        jobs: All that were to be done, of all methods.
        classes: Names; None for a target.
        unseen: Subjects that pretraining had no recording of; empty where that is not known, or true of all.
    """
    by_method: dict[str, list[FoldJob]] = {}
    for job in jobs:
        by_method.setdefault(job.method, []).append(job)
    whole = {name: read_predictions(of, classes) for name, of in by_method.items() if all(job.done for job in of)}
    networks = {job.method for job in jobs if job.kind == "network"}
    rest = {name: part for name, of in whole.items() if len(part := of.of(unseen))}
    return {
        "methods": [_method(of, whole.get(name), classes, unseen) for name, of in by_method.items()],
        "comparisons": _comparisons(whole, networks),
        "comparisons_unseen": _comparisons(rest, networks),
    }


def _method(jobs: Sequence[FoldJob], all_of: Predicted | None, classes: Classes, unseen: Sequence[str]) -> Any:
    runs = [_run(job, score_names(classes)) for job in jobs if job.done]
    told: dict[str, Any] = {
        "name": jobs[0].method,
        "kind": jobs[0].kind,
        "seeds": sorted({job.seed for job in jobs}),
        "runs": runs,
        "scores": None,
    }
    if all_of is None:
        return told
    first = read_predictions([job for job in jobs if job.seed == jobs[0].seed], classes)
    rest = all_of.of(unseen)
    spreads = _spreads(jobs, runs, classes)
    # However many seeds there are, a window counts once.
    subjects = {name: _plain_scores(all_of.of([name])) for name in np.unique(all_of.subject).tolist()}
    told |= {
        "scores": {name: score | spreads[name] for name, score in _scores(all_of).items()},
        "unseen": _scores(rest) if len(rest) else None,
        "per_subject": {name: of | {"n": len(first.of([name]))} for name, of in subjects.items()},
    }
    if classes is not None:
        support = {name: {"support": of["support"]} for name, of in first.scores["per_class"].items()}
        per_class = {name: of | support[name] for name, of in all_of.scores["per_class"].items()}
        told |= {"per_class": per_class, "confusion": first.scores["confusion"]}
    return told


def _run(job: FoldJob, names: Sequence[str]) -> dict[str, Any]:
    """One fold as it was tested."""
    said = json.loads((job.folder / METRICS).read_text())
    timing = job.folder / TIMING
    seconds = json.loads(timing.read_text())["seconds"] if timing.exists() else None
    kept = {name: said[name] for name in ("n", *names, "best_step", "steps") if name in said}
    return {"seed": job.seed, "fold": job.fold, **kept, "seconds": seconds}


def _scores(of: Predicted) -> dict[str, dict[str, Any]]:
    """Value and interval of each score."""
    return {
        name: {"value": of.scores[name], **_limits(of.resampled[name], len(np.unique(of.subject)))}
        for name in score_names(of.classes)
    }


def _limits(values: NDArray[np.float64], n_subjects: int) -> dict[str, float | None]:
    found = interval(values)
    defined = n_subjects > 1 and not np.isnan(found.low)
    return {"low": found.low if defined else None, "high": found.high if defined else None}


def _spreads(jobs: Sequence[FoldJob], runs: Sequence[Mapping[str, Any]], classes: Classes) -> dict[str, Any]:
    """Mean and deviation over folds, each the mean of its seeds, and the deviation over seeds."""
    seeds = sorted({job.seed for job in jobs})
    per_seed = [read_predictions([j for j in jobs if j.seed == s], classes).scores for s in seeds]
    made = {}
    for name in score_names(classes):
        folds = _means([(r["fold"], r[name]) for r in runs if r.get(name) is not None])
        each = [scores[name] for scores in per_seed if scores[name] is not None]
        made[name] = {
            "folds_mean": float(np.mean(folds)) if folds else None,
            "folds_sd": float(np.std(folds, ddof=1)) if len(folds) > 1 else None,
            "seeds_sd": float(np.std(each, ddof=1)) if len(each) > 1 else None,
        }
    return made


def _means(pairs: Sequence[tuple[int, float]]) -> list[float]:
    """The mean of the values of each key."""
    return [float(np.mean([value for k, value in pairs if k == key])) for key in dict.fromkeys(k for k, _ in pairs)]


def _plain_scores(of: Predicted) -> dict[str, Any]:
    return {name: of.scores[name] for name in ("n", *score_names(of.classes))}


def _comparisons(whole: Mapping[str, Predicted], networks: set[str]) -> list[dict[str, Any]]:
    """Every network against every other method: the difference on the same draws of subjects."""
    pairs = [
        (a, b)
        for a in whole
        for b in whole
        if a != b and a in networks and not (b in networks and list(whole).index(b) < list(whole).index(a))
    ]
    return [_difference(a, b, whole[a], whole[b], name) for a, b in pairs for name in score_names(whole[a].classes)]


def _difference(a: str, b: str, one: Predicted, other: Predicted, score: str) -> dict[str, Any]:
    values = one.scores[score], other.scores[score]
    limits = _limits(one.resampled[score] - other.resampled[score], len(np.unique(one.subject)))
    difference = None if None in values else values[0] - values[1]
    return {"a": a, "b": b, "score": score, "difference": difference, **limits}
