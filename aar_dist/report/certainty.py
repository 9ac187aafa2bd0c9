"""What probabilities are worth, keeping silent, and learning from few subjects, as curves.

results.json -> reliability diagrams, risk against coverage, few-shot curves, and their tables
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aar_dist.report.charts import Line, Panel, line_panel
from aar_dist.report.compare import CONSTANT, Comparison, Method
from aar_dist.report.folders import Folds
from aar_dist.report.numbers import Measure, interval, known, number
from aar_dist.report.svg import Scale

WHOLE = Scale(0.0, 1.0)
DIAGONAL = Line([(0.0, 0.0), (1.0, 1.0)], "reference", "as sure as right")


def certainty(of: Comparison) -> dict[str, Any]:
    """Calibration and abstention of every method that has probabilities."""
    told = [m for m in of.methods if m.get("calibration")]
    return {
        "reliability": [_reliability(m, of.style(m)) for m in told],
        "calibration_table": [_calibration_line(m, of.style(m)) for m in told],
        "risk_panel": _risk_panel(of),
        "risk_methods": [
            {"name": m["name"], "style": of.style(m)} for m in told if m["name"] not in CONSTANT and m.get("abstention")
        ],
        "abstention_table": [_abstention_line(m, of.style(m)) for m in of.methods if m.get("abstention")],
    }


def _reliability(method: Method, style: str) -> Panel:
    """Accuracy against confidence: before (faint) and after the temperature."""
    told = method["calibration"]
    lines = [DIAGONAL]
    for key, of, what in (("before", "faint", "as it said"), ("after", "", "after the temperature")):
        if told.get(key):
            faint = of if told.get("after") else ""
            points = [(one["confidence"], one["accuracy"]) for one in told[key]["bins"]]
            lines.append(Line(points, f"{style} {faint}".strip(), what))
    marks = [Line(lines[-1].points, style, lines[-1].title)]
    errors = " → ".join(number(told[key]["ece"]) for key in ("before", "after") if told.get(key))
    alt = f"{method['name']}: accuracy against confidence, expected calibration error {errors}"
    title = f"{method['name']}: ECE {errors}"
    return line_panel(title, lines, alt, x=WHOLE, y=WHOLE, x_name="confidence", marks=marks)


def _calibration_line(method: Method, style: str) -> dict[str, Any]:
    told = method["calibration"]
    cells = []
    for key in ("before", "after"):
        side = told.get(key) or {}
        cells.append((number(side.get("ece")), ""))
        cells += [(number((side.get(n) or {}).get("value")), interval(side.get(n) or {})) for n in ("brier", "nll")]
    heat = told.get("temperature") or {}
    between = f"{number(heat.get('least'))} to {number(heat.get('greatest'))}" if heat else ""
    return {
        "name": method["name"],
        "style": style,
        "cells": cells,
        "heat": number(heat.get("median")),
        "heats": between,
    }


def _risk_panel(of: Comparison) -> Panel | None:
    told = [m for m in of.methods if m.get("abstention") and m["name"] not in CONSTANT]
    if not told:
        return None
    lines = [Line([tuple(p) for p in m["abstention"]["curve"]], of.style(m), m["name"]) for m in reversed(told)]
    most = max(y for one in lines for _, y in one.points)
    alt = "Share of wrong answers against the share of windows that are answered: " + ", ".join(
        f"{m['name']} {number(m['abstention']['risk'])} of all" for m in told
    )
    y = Scale(0.0, max(0.05, 1.04 * most))
    return line_panel("wrong, of what is answered", lines, alt, x=WHOLE, y=y, x_name="answered")


def _abstention_line(method: Method, style: str) -> dict[str, Any]:
    told = method["abstention"]
    cells = []
    for one in told["wanted"]:
        chosen = one.get("chosen") or {}
        cells.append((number(one.get("hindsight")), ""))
        for key in ("coverage", "accuracy"):
            score = chosen.get(key) or {}
            cells.append((number(score.get("value")), interval(score)))
    return {"name": method["name"], "style": style, "aurc": number(told["aurc"]), "best": number(told["aurc_best"]),
            "risk": number(told["risk"]), "cells": cells}  # fmt: skip


def wanted(of: Comparison) -> list[str]:
    """The accuracies that thresholds were asked for."""
    first = next((m["abstention"] for m in of.methods if m.get("abstention")), None)
    return [f"{100 * one['accuracy']:g}\u00a0%" for one in first["wanted"]] if first else []


def few_shot(folds: Folds, of: Comparison) -> list[Panel]:
    """A panel for each score: value and interval against the number of subjects that were learned from."""
    rows = [r for r in folds.results.get("few_shot") or [] if known(r.get("n_subjects")) and r["n_subjects"] > 0]
    styles = {m["name"]: of.style(m) for m in of.methods}
    panels = [_curve(rows, measure, styles) for measure in of.measures]
    return [panel for panel in panels if panel is not None]


def _curve(rows: Sequence[Mapping[str, Any]], measure: Measure, styles: Mapping[str, str]) -> Panel | None:
    lines, points = [], []
    for name, style in styles.items():
        mine = [(r["n_subjects"], s) for r in rows if r["method"] == name and (s := r["scores"].get(measure.key))]
        mine = sorted(((n, s) for n, s in mine if known(s.get("value"))), key=lambda pair: pair[0])
        if not mine:
            continue
        at = [(n, s["value"]) for n, s in mine]
        bars = [Line([(n, s["low"]), (n, s["high"])], f"{style} faint", name) for n, s in mine if interval(s)]
        lines += [*bars, Line(at, style, name)]
        points.append(Line(at, style, f"{name}: " + ", ".join(f"{n:g}: {number(v)}" for n, v in at)))
    if not lines:
        return None
    x = Scale.of([n for one in points for n, _ in one.points], log=True)
    y = Scale.of([v for one in lines for _, v in one.points], zero=not measure.higher_is_better)
    alt = f"{measure.name} against subjects to learn from; " + "; ".join(one.title for one in points)
    return line_panel(measure.name, lines, alt, x=x, y=y, x_name="subjects learned from", marks=points)
