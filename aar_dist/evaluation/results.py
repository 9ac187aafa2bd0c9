"""What all folds say together: from the predictions of every run to ``results.json``.

    runs/<method>/seed_<s>/fold_<k>/predictions_fold_k.parquet -> Predicted of each method -> scores, intervals,
    per class, per subject, confusion, calibration, abstention; every two methods compared on the same subjects

A score is that of all test windows of all folds (and seeds, and repeats) together; its interval is over subjects. Only
a method whose folds are all there has scores: others would be of other animals.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aar_dist.base.metrics import ERRORS, LOWER_IS_BETTER, MAIN, SCORES
from aar_dist.base.stats.agreement import agreement
from aar_dist.base.stats.ordering import AUROC
from aar_dist.evaluation.fold_jobs import TIMING, FoldJob
from aar_dist.evaluation.review.answers import Answers, Classes, Predicted, once, read_answers, together
from aar_dist.evaluation.review.comparing import comparisons
from aar_dist.evaluation.review.few_shot import few_shot
from aar_dist.evaluation.review.scoring import per_class, per_subject, with_intervals, worst
from aar_dist.evaluation.review.sureness import sureness
from aar_dist.training.finetuning.folds import Fold
from aar_dist.training.finetuning.predictions import METRICS


def score_names(classes: Classes) -> tuple[str, ...]:
    """The scores of such labels."""
    return ERRORS if classes is None else SCORES


def gather(
    jobs: Sequence[FoldJob],
    classes: Classes,
    unseen: Sequence[str],
    *,
    repeats: int = 1,
    folds: Sequence[Fold] = (),
) -> dict[str, Any]:
    """``methods``, ``comparisons``, ``comparisons_unseen`` and ``few_shot`` of results.json.

    Args:
        jobs: All that were to be done, of all methods.
        classes: Names; None for a target.
        unseen: Subjects that pretraining had no recording of; empty where that is not known, or true of all.
        repeats: Deals of the subjects: each subject is tested once in each.
        folds: Who is on which side in each.
    """
    by_method: dict[str, list[FoldJob]] = {}
    for job in jobs:
        if job.fraction == 1.0:
            by_method.setdefault(job.method, []).append(job)
    made = {name: _Method.read(of, classes, repeats) for name, of in by_method.items()}
    whole = {name: of.said for name, of in made.items() if of.said is not None}
    runs = {name: of.runs for name, of in made.items()}
    rest = {name: part for name, of in whole.items() if len(part := of.of(unseen))}
    kinds = {name: of.jobs[0].kind for name, of in made.items()}
    return {
        "methods": [of.told(unseen) for of in made.values()],
        "comparisons": comparisons(whole, kinds, runs, repeats),
        "comparisons_unseen": comparisons(rest, kinds, {}),
        "few_shot": few_shot(jobs, classes, repeats, folds),
    }


@dataclass(frozen=True)
class _Method:
    """One method at its whole train side."""

    jobs: Sequence[FoldJob]
    classes: Classes
    runs: list[dict[str, Any]]
    """What is done, as it was tested."""
    answers: list[Answers] | None
    """None if a fold lacks."""
    said: Predicted | None

    @classmethod
    def read(cls, jobs: Sequence[FoldJob], classes: Classes, repeats: int) -> "_Method":
        """From the folders of its runs."""
        runs = [_run(job, (*score_names(classes), AUROC)) for job in jobs if job.done]
        answers = read_answers(jobs, classes, repeats) if all(job.done for job in jobs) else None
        return cls(jobs, classes, runs, answers, together(answers) if answers else None)

    def told(self, unseen: Sequence[str]) -> dict[str, Any]:
        """Its entry in results.json."""
        about: dict[str, Any] = {
            "name": self.jobs[0].method,
            "kind": self.jobs[0].kind,
            "seeds": sorted({job.seed for job in self.jobs}),
            "runs": self.runs,
            "scores": None,
        }
        return about | (self._scored(self.answers, self.said, unseen) if self.answers and self.said else {})

    def _scored(self, answers: Sequence[Answers], said: Predicted, unseen: Sequence[str]) -> dict[str, Any]:
        first, rest = once(answers), said.of(unseen)  # however many seeds and repeats there are, a window counts once
        spreads = _spreads(answers, self.runs, said.names)
        subjects = per_subject(said, {name: len(first.of([name])) for name in first.subjects})
        main = next(name for name in MAIN if name in said.names)
        told = {
            "scores": {name: score | spreads[name] for name, score in with_intervals(said).items()},
            "unseen": with_intervals(rest) if len(rest) else None,
            "per_subject": subjects,
            "worst_subjects": worst(subjects, main, lower_is_better=main in LOWER_IS_BETTER),
        }
        if self.classes is None:
            return told | {"agreement": agreement(said.subject, said.y_true, said.y_pred)}
        support = {name: of["support"] for name, of in first.scores["per_class"].items()}
        confusion = {"per_class": per_class(said, support), "confusion": first.scores["confusion"]}
        return told | confusion | sureness(answers)


def _run(job: FoldJob, names: Sequence[str]) -> dict[str, Any]:
    """One fold as it was tested."""
    said = json.loads((job.folder / METRICS).read_text())
    timing = job.folder / TIMING
    seconds = json.loads(timing.read_text())["seconds"] if timing.exists() else None
    kept = {name: said[name] for name in ("n", *names, "best_step", "steps", "choice") if name in said}
    return {"seed": job.seed, "fold": job.fold, **kept, "seconds": seconds}


def _spreads(answers: Sequence[Answers], runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Mean and deviation over folds, each the mean of its seeds, and the deviation over seeds."""
    seeds = sorted({one.job.seed for one in answers})
    per_seed = [together([one for one in answers if one.job.seed == seed]).scores for seed in seeds]
    made = {}
    for name in names:
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
