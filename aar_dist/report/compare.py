"""Who is compared with whom, and what may be said of it.

results.json -> ours, best baseline, scratch -> one sentence that the numbers carry, and what stands beside it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aar_dist.base.metrics import ERRORS, SCORES
from aar_dist.evaluation.review.comparing import FEW, main_of
from aar_dist.report.folders import Folds
from aar_dist.report.numbers import Measure, count, known, listed, measures_of, number, p_value, signed, with_interval
from aar_dist.report.pairs import pairs_of, turned

Method = Mapping[str, Any]
CONSTANT = ("majority", "mean")
"""Methods that say the same of every window: beside them, all others look alike in a figure."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The methods in the order of the page, and who stands for what."""

    methods: list[Method]
    ours: Method
    baseline: Method | None
    """The best one by the main score: picked by the test subjects, which favours it."""
    scratch: Method | None
    measures: list[Measure]
    """The scores there are."""

    @property
    def measure(self) -> Measure:
        """What the headline goes by."""
        return self.measures[0]

    def style(self, method: Method) -> str:
        """CSS class of a method's colour and shape."""
        return f"m{min(self.methods.index(method), 7)}"


def comparison(folds: Folds) -> Comparison:
    """Who stands for what; see :func:`main_of`."""
    methods = folds.methods
    networks = [m for m in methods if m["kind"] == "network"]
    others = [m for m in methods if m["kind"] != "network"]
    main = main_of([(m["name"], m["kind"] == "network") for m in methods])
    ours = next(m for m in methods if m["name"] == main)
    told = {key for m in methods for key in m.get("scores") or {}}
    measures = measures_of((*(SCORES if folds.classes else ERRORS), *told))
    best: Method | None = None
    for method in (m for m in _baselines(methods) if m is not ours):
        value = score_of(method, measures[0]).get("value")
        if known(value) and (best is None or measures[0].better(value, score_of(best, measures[0])["value"])):
            best = method
    return Comparison(
        methods=[ours, *(m for m in networks if m is not ours), *(m for m in others if m is not ours)],
        ours=ours,
        baseline=best,
        scratch=next((m for m in networks if m["name"].startswith("scratch") and m is not ours), None),
        measures=measures,
    )


def _baselines(methods: Sequence[Method]) -> list[Method]:
    """What knows nothing of the network: a probe of the stored model is one more way of using it."""
    return [m for m in methods if m["kind"] == "baseline"]


def headline(folds: Folds, of: Comparison) -> str:
    """One sentence: how good, on whom, against what, and whether that is beyond doubt."""
    measure, ours = of.measure, score_of(of.ours, of.measure)
    subjects = count(len(folds.tested), "held-out subject")
    start = f"{of.ours['name']}: {measure.name} {with_interval(ours)} on {subjects}"
    if not known(ours.get("value")):
        return f"{of.ours['name']} has no score yet: not all of its folds are done."
    if of.baseline is None:
        began = [m["name"] for m in _baselines(of.methods) if m is not of.ours]
        none = f"no baseline has all of its folds yet ({listed(began)})" if began else "there is no baseline"
        return f"{start}; {none} to compare it with."
    theirs = score_of(of.baseline, measure)
    other = f"the best baseline, {of.baseline['name']}, has {with_interval(theirs)}"
    return f"{start}; {other}: {_judged(folds, of, of.baseline)}."


def verdict(ours: Mapping[str, Any], theirs: Mapping[str, Any], measure: Measure) -> str:
    """In words, from the values and their intervals alone."""
    if not known(ours.get("value")) or not known(theirs.get("value")):
        return "one of them has no score"
    if ours["value"] == theirs["value"]:
        return "the same"
    word = "better" if measure.better(ours["value"], theirs["value"]) else "worse"
    if not all(known(s.get(k)) for s in (ours, theirs) for k in ("low", "high")):
        return f"{word}, but without intervals nobody can tell by chance or not"
    apart = ours["low"] > theirs["high"] or theirs["low"] > ours["high"]
    return f"{word}, and the intervals do not overlap" if apart else f"{word}, but the intervals overlap"


def remarks(folds: Folds, of: Comparison) -> list[str]:
    """What a sceptical reader asks next."""
    said = [
        _beside(folds, of, other, what)
        for other, what in ((of.baseline, "the best baseline"), (of.scratch, ""))
        if other
    ]
    said += [*_few(folds, of), *_unseen(folds, of)]
    said.append(_never_shared(folds))
    return [line for line in said if line]


def _beside(folds: Folds, of: Comparison, other: Method, what: str) -> str:
    """Subject by subject, which is sharper than two intervals side by side."""
    key, name = (
        of.measure.key,
        f"{what}, {other['name']}" if what else f"the same network from random weights, {other['name']}",
    )
    ours, theirs = score_of(of.ours, of.measure), score_of(other, of.measure)
    if not known(ours.get("value")) or not known(theirs.get("value")):
        return ""
    values = f"{number(ours.get('value'))} and {number(theirs.get('value'))}"
    text = f"Against {name}: {values}, {_judged(folds, of, other)}."
    both = _both(of.ours, other, key)
    if both:
        wins, ties = sum(of.measure.better(a, b) for a, b in both), sum(a == b for a, b in both)
        word = "Better" if of.measure.higher_is_better else "Lower error"
        text += f" {word} on {wins} of {count(len(both), 'subject')}{f', the same on {ties}' if ties else ''}."
    return text + _difference(folds, of, other)


def _both(a: Method, b: Method, key: str) -> list[tuple[float, float]]:
    theirs = b.get("per_subject") or {}
    pairs = [(of.get(key), theirs.get(s, {}).get(key)) for s, of in (a.get("per_subject") or {}).items()]
    return [(x, y) for x, y in pairs if x is not None and y is not None and known(x) and known(y)]


def _pair(folds: Folds, of: Comparison, other: Method) -> dict[str, Any]:
    """What results.json says of ours and another; empty if it says nothing."""
    for told in pairs_of(folds, of.measure):
        if {told.get("a"), told.get("b")} == {of.ours["name"], other["name"]}:
            return turned(told, of.ours["name"])
    return {}


def _judged(folds: Folds, of: Comparison, other: Method) -> str:
    """In a word or two: by the test, or, in results of before there was one, by the intervals."""
    pair = _pair(folds, of, other)
    if not pair.get("verdict"):
        return verdict(score_of(of.ours, of.measure), score_of(other, of.measure), of.measure)
    return f"{pair['verdict']} ({p_value(pair['p_corrected'])}, corrected for {count(pair['n_pairs'], 'comparison')})"


def _difference(folds: Folds, of: Comparison, other: Method) -> str:
    """The interval of the difference; empty if results.json says nothing."""
    pair = _pair(folds, of, other)
    low, high = pair.get("low"), pair.get("high")
    if not known(low) or not known(high):
        return ""
    if pair.get("verdict"):
        return f" The difference on the same subjects is {signed(low)} to {signed(high)} (95\u00a0%)."
    zero = "zero lies outside" if low > 0 or high < 0 else "zero lies inside, so it may be chance"
    return f" On the same draws of subjects the difference is {signed(low)} to {signed(high)} (95\u00a0%): {zero}."


def _few(folds: Folds, of: Comparison) -> list[str]:
    """Where no test can find anything."""
    planned = [p for p in pairs_of(folds, of.measure) if p.get("planned") and p.get("verdict") == FEW]
    if not planned:
        return []
    n, m = (count(planned[0][key], what) for key, what in (("n_subjects", "subject"), ("n_pairs", "comparison")))
    return [
        f"With {n} and {m} the test can tell nothing apart, not even methods on which all subjects agree: the "
        "intervals are all there is to go by."
    ]


def _unseen(folds: Folds, of: Comparison) -> list[str]:
    subjects = folds.tested
    seen = [s for s, about in subjects.items() if about.get("pretrained_on")]
    if not seen:
        return []
    taught = {*((folds.results.get("pretraining") or {}).get("taught") or {})} & {*subjects}
    labels = f"and learned the labels of {len(taught)}" if taught else "without their labels"
    text = f"Pretraining has seen recordings of {len(seen)} of {count(len(subjects), 'subject')}, {labels}."
    rest = (of.ours.get("unseen") or {}).get(of.measure.key)
    if rest:
        text += f" On the others alone, {of.measure.name} is {with_interval(rest)}."
    return [text]


def _never_shared(folds: Folds) -> str:
    said = "No subject is on two sides of a fold: each is scored by models that have not trained on it."
    audit = folds.results.get("audit") or {}
    if not audit:
        return f"{said} No leak audit was made."
    leaks = audit.get("leaks") or []
    found = f"{count(len(leaks), 'leak')} between sides" if leaks else "nothing on two sides of a fold"
    return f"{said} The leak audit compared {count(audit.get('recordings', 0), 'recording')} and found {found}."


def failures(folds: Folds) -> list[str]:
    """What did not run, by name."""
    return [
        f"{f.get('method')}, seed {f.get('seed')}, fold {f.get('fold')}: {f.get('reason')}"
        for f in folds.results.get("failed") or []
    ]


def measured(folds: Folds) -> str:
    """On which data."""
    results = folds.results
    windows = results.get("windows") or {}
    n = sum(sum((about.get("windows") or {}).values()) for about in folds.tested.values())
    length = f" of {windows['segment_duration']:g} s" if known(windows.get("segment_duration")) else ""
    classes = f", {count(len(folds.classes), 'class', 'classes')}" if folds.classes else ", a number to predict"
    return (
        f"{listed(results['datasets'])}: {count(n, 'labelled window')}{length} of "
        f"{count(len(folds.tested), 'subject')}{classes}, {count(results['n_folds'], 'fold')} by subject"
    )


def score_of(method: Method, measure: Measure) -> dict[str, Any]:
    """Value and interval; empty where not all folds are done."""
    score: dict[str, Any] = (method.get("scores") or {}).get(measure.key) or {}
    return score
