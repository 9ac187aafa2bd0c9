"""Every two methods on the same subjects: how far apart, and whether that is chance.

Predicted of a and b -> difference with interval, p of the swap test, corrected for their number -> in a word

One method is what the study is about, named by its place and never by its score. Its comparisons are planned: p is
corrected (Holm) for their number. All others are corrected for the number of all pairs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aar_dist.base.metrics import LOWER_IS_BETTER
from aar_dist.base.stats import paired
from aar_dist.base.stats.intervals import LEVEL, PLAIN, interval
from aar_dist.base.stats.tallies import without_each
from aar_dist.evaluation.review.answers import Predicted

Run = Mapping[str, Any]
SAME, FEW = "not told apart", "too few subjects to tell"


def comparisons(
    whole: Mapping[str, Predicted], kinds: Mapping[str, str], runs: Mapping[str, Sequence[Run]], repeats: int = 1
) -> list[dict[str, Any]]:
    """Of every method against every other one, for every score that both have; baselines are not compared with one
    another.

    Args:
        whole: Method -> its test windows.
        kinds: Method -> network, probe or baseline; in the order of the study.
        runs: Method -> scores of its single folds.
        repeats: Deals of the subjects; the folds of several are compared, too.
    """
    names, main = [name for name in kinds if name in whole], main_of([(n, k == "network") for n, k in kinds.items()])
    made: list[dict[str, Any]] = []
    for k, a in enumerate(names):
        for b in names[k + 1 :]:
            pair = (b, a) if b == main or (kinds[a] == "baseline" and a != main) else (a, b)
            if kinds[pair[0]] != "baseline":
                made += _pair(*pair, whole, runs, repeats)
    return _corrected(made, main)


def main_of(methods: Sequence[tuple[str, bool]]) -> str:
    """What a study is about: ``pretrained``, or the first network that is not from scratch; never the one with the best
    test score.

    Args:
        methods: Name, and whether it is a network, in the order of the study.
    """
    networks = [name for name, network in methods if network]
    trained = [name for name in networks if not name.startswith("scratch")]
    return ([name for name in trained if name == "pretrained"] or trained or networks or [methods[0][0]])[0]


def _pair(
    a: str, b: str, whole: Mapping[str, Predicted], runs: Mapping[str, Sequence[Run]], repeats: int
) -> list[dict[str, Any]]:
    one, other = whole[a], whole[b]
    swapped = paired.swap_test(one.tallies, other.tallies)
    made = []
    for score in (name for name in one.names if name in other.names):
        values = one.scores[score], other.scores[score]
        difference = None if None in values else values[0] - values[1]
        apart = one.drawn[score] - other.drawn[score]
        test = swapped[score] if score in swapped else _sign_flips(one, other, score, difference)
        made.append(
            {
                "a": a,
                "b": b,
                "score": score,
                "difference": difference,
                **interval(difference, apart, len(one.subjects), PLAIN),
                "p": test.p,
                "test": test.name,
                "n_subjects": len(one.subjects),
                **_by_subject(one, other, score),
                "folds": _by_fold(runs.get(a, ()), runs.get(b, ()), score, repeats) if repeats > 1 else None,
            }
        )
    return made


def _by_subject(one: Predicted, other: Predicted, score: str) -> dict[str, Any]:
    """What the scores of the single subjects say; None where subjects have none of their own."""
    if score not in one.tallies.each:
        return {"wins": None, "ties": None, "p_wilcoxon": None, "effect": None}
    apart = one.tallies.each[score] - other.tallies.each[score]
    apart = apart[np.isfinite(apart)]
    better = -apart if score in LOWER_IS_BETTER else apart
    return {
        "wins": int((better > paired.TIE).sum()),
        "ties": int((np.abs(better) <= paired.TIE).sum()),
        "p_wilcoxon": paired.signed_rank(apart.tolist()),
        "effect": paired.effect(apart.tolist()),
    }


def _sign_flips(one: Predicted, other: Predicted, score: str, difference: float | None) -> paired.Swapped:
    """For a score of pairs of windows, which two methods cannot share: each subject's part in the difference, told by
    what is lost without it, is taken with either sign."""
    assert one.ordered is not None
    assert other.ordered is not None
    n = len(one.subjects)
    lost = without_each(one.ordered)[score] - without_each(other.ordered)[score]
    return paired.sign_flips(n * (np.nan if difference is None else difference) - (n - 1) * lost)


def _by_fold(a: Sequence[Run], b: Sequence[Run], score: str, repeats: int) -> dict[str, float] | None:
    """The corrected t-test over the folds of all repeats, each the mean of its seeds."""
    ours, theirs = _folds(a, score), _folds(b, score)
    both = sorted(ours.keys() & theirs.keys())
    n_folds = max((fold for fold in both), default=0) + 1
    return paired.resampled_t([ours[k] - theirs[k] for k in both], repeats / n_folds) if n_folds > repeats else None


def _folds(runs: Sequence[Run], score: str) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for run in runs:
        if run.get(score) is not None:
            found.setdefault(run["fold"], []).append(run[score])
    return {fold: float(np.mean(values)) for fold, values in found.items()}


def _corrected(made: list[dict[str, Any]], main: str) -> list[dict[str, Any]]:
    """With p corrected, for how many pairs (``n_pairs``), whether they are the planned ones, and what may be said."""
    for score in dict.fromkeys(one["score"] for one in made):
        rows = [one for one in made if one["score"] == score]
        for family in (rows, [one for one in rows if main in (one["a"], one["b"])]):
            planned = family is not rows
            for row, p in zip(family, paired.holm([one["p"] for one in family]), strict=True):
                row |= {"p_corrected": p, "n_pairs": len(family), "planned": planned}
                row["verdict"] = _verdict(row, score)
    return made


def _verdict(row: Mapping[str, Any], score: str) -> str | None:
    """Of a against b, in words; None where there is no test."""
    difference, p = row["difference"], row["p_corrected"]
    if difference is None or p is None:
        return None
    if p > 1 - LEVEL:
        return FEW if difference and paired.too_few(row["n_subjects"], row["n_pairs"]) else SAME
    return "better" if (difference < 0) == (score in LOWER_IS_BETTER) else "worse"
