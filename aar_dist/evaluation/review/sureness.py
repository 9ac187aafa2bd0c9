"""What a method's probabilities are worth, and how often it is right when it may keep silent.

Answers of each run -> temperature and threshold of its validation side -> its test side -> all of them together

Nothing here is chosen on a test window: temperature and threshold are those of the run's own validation subjects. A
method that selects nothing (a baseline) has no such side: its probabilities are taken as they are, without a
threshold. The validation side has chosen the weights, too, and may look a little better than the test side for that.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.stats import calibration as cal
from aar_dist.base.stats.abstention import RiskCoverage, best_area, risk_coverage
from aar_dist.base.stats.intervals import ERROR, SHARE, interval
from aar_dist.base.stats.tallies import Tallies, drawn, mean_tallies
from aar_dist.evaluation.review.answers import Answers, Predicted, joined, plain

WANTED = (0.9, 0.95)
"""Accuracies that a threshold is asked for."""
POINTS = 60
"""Of a risk-coverage curve, as it is told."""
Floats = NDArray[np.float64]


def sureness(answers: Sequence[Answers]) -> dict[str, Any]:
    """``calibration`` and ``abstention`` of a method, ready for JSON; None of each without probabilities."""
    said = joined([one.test for one in answers])
    if said.probability is None or said.classes is None:
        return {"calibration": None, "abstention": None}
    heats = temperatures(answers)
    tempered = None if heats is None else _tempered(answers, heats)
    return {
        "calibration": {
            "n_bins": cal.BINS,
            "temperature": None if heats is None else _spread(heats),
            "before": _calibration(said, said.probability),
            "after": None if tempered is None else _calibration(said, tempered),
        },
        "abstention": _abstention(answers, said, said.probability if tempered is None else tempered, heats),
    }


def temperatures(answers: Sequence[Answers]) -> list[float] | None:
    """That of each run; None if one has no validation side, or no probabilities."""
    sides = [one.validation for one in answers]
    found = [cal.temperature(v.probability, v.y_true) for v in sides if v is not None and v.probability is not None]
    return found if len(found) == len(answers) else None


def _tempered(answers: Sequence[Answers], heats: Sequence[float]) -> Floats:
    """(n, K) of all test windows, each at its run's temperature."""
    return np.concatenate([_at(one.test, t) for one, t in zip(answers, heats, strict=True)])


def _at(side: Predicted | None, t: float) -> Floats:
    assert side is not None
    assert side.probability is not None
    return cal.at_temperature(side.probability, t)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "least": min(values), "greatest": max(values)}


def _calibration(said: Predicted, probability: Floats) -> dict[str, Any]:
    bins = cal.reliability(probability.max(1), probability.argmax(1) == said.y_true)
    means = {"brier": cal.brier(probability, said.y_true), "nll": cal.surprise(probability, said.y_true)}
    tallies = mean_tallies(said.subject, **means)
    draws, n = drawn(tallies), len(tallies.subjects)
    told = {
        name: {"value": value, **interval(value, draws[name], n, ERROR)}
        for name, value in ((name, float(tallies.whole[name])) for name in means)
    }
    return {"ece": cal.calibration_error(bins), **told, "bins": [asdict(one) for one in bins]}


def _abstention(
    answers: Sequence[Answers], said: Predicted, probability: Floats, heats: Sequence[float] | None
) -> dict[str, Any]:
    right, confidence = probability.argmax(1) == said.y_true, probability.max(1)
    curve = risk_coverage(confidence, right)
    return {
        "aurc": curve.area,
        "aurc_best": best_area(float(1 - right.mean())),
        "risk": float(1 - right.mean()),
        "curve": _thinned(curve),
        "wanted": [
            {
                "accuracy": wanted,
                "hindsight": curve.coverage_at(wanted),
                "chosen": None if heats is None else _chosen(answers, said.subject, right, confidence, heats, wanted),
            }
            for wanted in WANTED
        ],
    }


def _chosen(
    answers: Sequence[Answers],
    subject: NDArray[Any],
    right: NDArray[np.bool_],
    confidence: Floats,
    heats: Sequence[float],
    wanted: float,
) -> dict[str, Any]:
    """What each run's threshold, found on its validation side, keeps of its test side and how much of that is right."""
    limits = np.concatenate(
        [np.full(len(one.test), _threshold(one, t, wanted)) for one, t in zip(answers, heats, strict=True)]
    )
    kept = confidence >= limits
    tallies = _kept_tallies(subject, right & kept, kept)
    draws, n = drawn(tallies), len(tallies.subjects)
    values = {name: plain(value) for name, value in tallies.whole.items()}
    return {name: {"value": value, **interval(value, draws[name], n, SHARE)} for name, value in values.items()}


def _threshold(one: Answers, t: float, wanted: float) -> float:
    """Infinite where no confidence of the validation side is enough."""
    side, probability = one.validation, _at(one.validation, t)
    assert side is not None
    found = risk_coverage(probability.max(1), probability.argmax(1) == side.y_true).threshold_at(wanted)
    return np.inf if found is None else found


def _kept_tallies(subject: NDArray[Any], hit: NDArray[np.bool_], kept: NDArray[np.bool_]) -> Tallies:
    of = mean_tallies(subject, hit=hit, kept=kept)

    def score(sums: Floats) -> dict[str, Floats]:
        hits, n_kept, n = np.moveaxis(sums, -1, 0)
        accuracy = np.where(n_kept > 0, hits / np.maximum(n_kept, 1), np.nan)
        return {"accuracy": accuracy, "coverage": n_kept / n}

    return Tallies(of.subjects, of.sums, score)


def _thinned(curve: RiskCoverage) -> list[list[float]]:
    """(coverage, risk) at like distances, the last one included."""
    grid = np.arange(1, POINTS + 1) / POINTS
    at = np.unique(np.minimum(np.searchsorted(curve.coverage, grid - 1e-12), len(curve.coverage) - 1))
    return [[round(float(curve.coverage[k]), 5), round(float(curve.risk[k]), 5)] for k in at]
