"""Every two methods on the same subjects: a row for each pair, the difference with its interval beside zero.

results.json -> forest of the pairs with ours (then all others), a table of every score
"""

from collections.abc import Mapping
from typing import Any

from aar_dist.report.charts import Mark, Row, Rows, dot_row
from aar_dist.report.compare import CONSTANT, Comparison
from aar_dist.report.folders import Folds
from aar_dist.report.numbers import DASH, Measure, known, number, p_value, signed
from aar_dist.report.pairs import pairs_of, turned
from aar_dist.report.svg import Scale

Pair = Mapping[str, Any]
MOST = 24
"""Pairs that are drawn; the tables have all."""


def differences(folds: Folds, of: Comparison) -> dict[str, Any]:
    """What the template needs; results of before there were tests have no tables."""
    pairs = {measure: _oriented(folds, of, measure) for measure in of.measures}
    told = [one for some in pairs.values() for one in some]
    return {
        "forest": _forest(pairs[of.measure], of),
        "pair_tables": [(m.name, [_line(p) for p in some]) for m, some in pairs.items() if any("p" in p for p in some)],
        "pair_test": next((one["test"] for one in told if one.get("test")), ""),
    }


def _oriented(folds: Folds, of: Comparison, measure: Measure) -> list[dict[str, Any]]:
    """Those with ours first, in the order of the page."""
    ours = of.ours["name"]
    pairs = [turned(one, ours) for one in pairs_of(folds, measure)]
    place = {m["name"]: k for k, m in enumerate(of.methods)}
    return sorted(pairs, key=lambda p: (p["a"] != ours, place.get(p["a"], 99), place.get(p["b"], 99)))


def _forest(pairs: list[dict[str, Any]], of: Comparison) -> Rows | None:
    told = [p for p in pairs if known(p.get("difference"))]
    near = [p for p in told if not {p["a"], p["b"]} & {*CONSTANT}]
    shown = (near or told)[:MOST]
    if not shown:
        return None
    values = [p[key] for p in shown for key in ("difference", "low", "high") if known(p.get(key))]
    scale = Scale.of([*values, 0.0])
    styles = {m["name"]: of.style(m) for m in of.methods}
    return Rows(f"difference in {of.measure.name}", [_row(p, scale, styles) for p in shown], scale.ticks())


def _row(pair: Pair, scale: Scale, styles: Mapping[str, str]) -> Row:
    text, style = signed(pair["difference"]), styles.get(pair["b"], "m0")
    both = known(pair.get("low")) and known(pair.get("high"))
    said = f"{signed(pair['low'])} to {signed(pair['high'])}" if both else "no interval"
    told = _told(pair)
    marks = [Mark(pair["difference"], style, f"{text}, 95 % {said}")]
    alt = f"{pair['a']} less {pair['b']}: {text}, 95 % {said}; {told}"
    svg = dot_row(scale, marks, alt, (pair["low"], pair["high"]) if both else None, style, zero=True)
    return Row(f"{pair['a']} − {pair['b']}", svg, text, told)


def _told(pair: Pair) -> str:
    return f"{pair['verdict']}, {p_value(pair.get('p_corrected'))}" if pair.get("verdict") else ""


def _line(pair: Pair) -> dict[str, str]:
    """A line of the table."""
    effect = pair.get("effect") or {}
    low, high = pair.get("low"), pair.get("high")
    return {
        "name": f"{pair['a']} − {pair['b']}",
        "difference": signed(pair["difference"]) if known(pair.get("difference")) else DASH,
        "interval": f"{signed(low)} to {signed(high)}" if known(low) and known(high) else "",
        "p": p_value(pair.get("p")).removeprefix("p = ").removeprefix("p "),
        "corrected": p_value(pair.get("p_corrected")).removeprefix("p = ").removeprefix("p "),
        "pairs": str(pair.get("n_pairs") or DASH),
        "wilcoxon": number(pair.get("p_wilcoxon")),
        "folds": number((pair.get("folds") or {}).get("p")),
        "wins": f"{pair['wins']} of {pair['n_subjects']}" if known(pair.get("wins")) else DASH,
        "effect": number(effect.get("g")),
        "effect_interval": f"{number(effect.get('low'))} to {number(effect.get('high'))}" if effect else "",
        "verdict": pair.get("verdict") or DASH,
    }
