"""What finished runs said of their windows.

FoldJob … -> predictions_fold_k.parquet, validation_fold_k.parquet -> Answers of each run -> Predicted of a method
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aar_dist.base.metrics import ERRORS, SCORES, classification_scores, regression_scores
from aar_dist.base.stats.ordering import AUROC, Orderings, orderings
from aar_dist.base.stats.tallies import Scores, Tallies, class_tallies, drawn, target_tallies
from aar_dist.evaluation.fold_jobs import FoldJob
from aar_dist.training.finetuning.predictions import TEST, VALIDATION, file_of

Classes = Sequence[str] | None


@dataclass(frozen=True)
class Predicted:
    """Windows of one run or several; n of them."""

    subject: NDArray[np.str_]
    y_true: NDArray[Any]
    y_pred: NDArray[Any]
    classes: Classes
    probability: NDArray[np.float64] | None = None
    """(n, K); None for targets, and for a method that has none."""
    copies: int = 1
    """Times each window stands in them: seeds times repeats."""

    def __len__(self) -> int:
        return len(self.subject)

    @cached_property
    def subjects(self) -> list[str]:
        """Their names, sorted."""
        return [str(name) for name in np.unique(self.subject)]

    def of(self, subjects: Sequence[str]) -> "Predicted":
        """The windows of some subjects."""
        mask = np.isin(self.subject, list(subjects))
        part = None if self.probability is None else self.probability[mask]
        return Predicted(self.subject[mask], self.y_true[mask], self.y_pred[mask], self.classes, part, self.copies)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The scores there are."""
        if self.classes is None:
            return ERRORS
        return SCORES if self.probability is None else (*SCORES, AUROC)

    @cached_property
    def scores(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        if self.classes is None:
            return regression_scores(self.y_true, self.y_pred)
        found = classification_scores(self.y_true, self.y_pred, self.classes)
        if self.ordered is None:
            return found
        all_of = np.ones(len(self.ordered.subjects))
        each = self.ordered.of_classes(all_of).tolist()
        for name, value in zip(self.classes, each, strict=True):
            found["per_class"][name][AUROC] = plain(value)
        return found | {AUROC: plain(self.ordered.weighted(all_of)[AUROC])}

    @cached_property
    def tallies(self) -> Tallies:
        """Sums of each subject."""
        if self.classes is None:
            return target_tallies(self.subject, self.y_true, self.y_pred, self.copies)
        return class_tallies(self.subject, self.y_true, self.y_pred, len(self.classes), self.copies)

    @cached_property
    def ordered(self) -> Orderings | None:
        """Pairs of windows; None without probabilities."""
        return None if self.probability is None else orderings(self.subject, self.y_true, self.probability)

    @cached_property
    def drawn(self) -> Scores:
        """Each score over draws of subjects."""
        return {**drawn(self.tallies), **(drawn(self.ordered) if self.ordered is not None else {})}


@dataclass(frozen=True)
class Answers:
    """What one run said."""

    job: FoldJob
    repeat: int
    """Which deal of the subjects its fold belongs to, from 0."""
    test: Predicted
    validation: Predicted | None
    """The side that chose its weights; None for a method that needs none."""


def read_answers(jobs: Sequence[FoldJob], classes: Classes, repeats: int = 1) -> list[Answers]:
    """Of the runs that are done, in their order.

    Args:
        jobs: All folds of all repeats, with one seed or several, done or not.
        classes: Names; None for a target.
        repeats: Deals of the subjects; folds are numbered through them.
    """
    in_one = len({job.fold for job in jobs}) // repeats or 1
    return [
        Answers(
            job,
            int(job.fold) // in_one,
            read_predicted(file_of(job.folder, TEST, job.fold), classes),
            read_predicted(side, classes) if (side := file_of(job.folder, VALIDATION, job.fold)).exists() else None,
        )
        for job in jobs
        if job.done
    ]


def read_predicted(file: Path, classes: Classes) -> Predicted:
    """One file."""
    schema = pq.read_schema(file)
    columns = [name for name in ("subject", "y_true", "y_pred", "probability") if name in schema.names]
    table = pq.read_table(file, columns=columns)
    probability = None
    if classes is not None and "probability" in columns and not table["probability"].null_count:
        flat = table["probability"].combine_chunks().flatten().to_numpy()
        probability = flat.reshape(len(table), len(classes)).astype(np.float64)
    names = np.array(table["subject"].to_pylist(), np.str_)
    return Predicted(names, table["y_true"].to_numpy(), table["y_pred"].to_numpy(), classes, probability)


def together(answers: Sequence[Answers]) -> Predicted:
    """The test windows of several runs of a method."""
    said = [one.test for one in answers]
    copies = len({(one.job.seed, one.repeat) for one in answers})
    return replace(joined(said), copies=copies)


def joined(parts: Sequence[Predicted]) -> Predicted:
    """All windows, in this order; with probabilities if all have them."""
    told = [one.probability for one in parts if one.probability is not None]
    return Predicted(
        np.concatenate([one.subject for one in parts]),
        np.concatenate([one.y_true for one in parts]),
        np.concatenate([one.y_pred for one in parts]),
        parts[0].classes,
        np.concatenate(told) if len(told) == len(parts) else None,
    )


def once(answers: Sequence[Answers]) -> Predicted:
    """Every test window once: those of the first seed, in the first repeat."""
    first = answers[0].job.seed
    return joined([one.test for one in answers if one.job.seed == first and one.repeat == 0])


def plain(value: Any) -> float | None:
    """A number for JSON; None where it is not defined."""
    return float(value) if np.isfinite(value) else None
