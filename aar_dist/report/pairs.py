"""Two methods of results.json side by side."""

from collections.abc import Mapping
from typing import Any

from aar_dist.report.folders import Folds
from aar_dist.report.numbers import Measure, known


def pairs_of(folds: Folds, measure: Measure) -> list[dict[str, Any]]:
    """The comparisons of results.json by one score."""
    return [told for told in folds.results.get("comparisons") or [] if told.get("score") == measure.key]


def turned(told: Mapping[str, Any], ours: str) -> dict[str, Any]:
    """A comparison with ``ours`` first."""
    if told["a"] == ours or told["b"] != ours:
        return dict(told)
    other: dict[Any, Any] = {"better": "worse", "worse": "better"}
    back = {key: -told[key] if known(told.get(key)) else None for key in ("difference", "low", "high")}
    wins = told["n_subjects"] - told["wins"] - told["ties"] if known(told.get("wins")) else None
    verdict = told.get("verdict")
    return {
        **told, "a": told["b"], "b": told["a"], "difference": back["difference"], "low": back["high"],
        "high": back["low"], "wins": wins, "verdict": other.get(verdict, verdict),
    }  # fmt: skip
