"""Scores as tables and rows of dots: of methods, of folds, of subjects, of classes; and what was taken for what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from aar_dist.base.timelines import class_colours
from aar_dist.report.charts import Mark, Row, Rows, bar_row, dot_row
from aar_dist.report.compare import Comparison, Method, score_of
from aar_dist.report.folders import Folds
from aar_dist.report.numbers import Measure, count, interval, known, number
from aar_dist.report.svg import Scale


@dataclass(frozen=True)
class Confusion:
    """Counts and shares of each true class."""

    name: str
    style: str
    classes: list[str]
    cells: list[list[tuple[int, float]]]
    """(count, share of the row)."""


def method_table(folds: Folds, of: Comparison) -> list[dict[str, Any]]:
    """A line for each method: score, interval, spread over folds and seeds, how many runs there are."""
    return [
        {
            "name": m["name"],
            "kind": m["kind"],
            "style": of.style(m),
            "cells": [_cell(score_of(m, measure)) for measure in of.measures],
            "unseen": _cell((m.get("unseen") or {}).get(of.measure.key) or {}),
            "runs": f"{len(m['runs'])} of {len(m.get('seeds') or [0]) * folds.results['n_folds']}",
            "seconds": sum(r.get("seconds") or 0.0 for r in m["runs"]),
        }
        for m in of.methods
    ]


def _cell(score: Mapping[str, Any]) -> dict[str, Any]:
    spread = [
        f"± {number(score[k])} {of}" for k, of in (("folds_sd", "folds"), ("seeds_sd", "seeds")) if known(score.get(k))
    ]
    return {"value": number(score.get("value")), "interval": interval(score), "spread": spread}


def method_charts(of: Comparison) -> list[Rows]:
    """For each score a row of every method: the value with its interval, and its folds as faint dots."""
    return [_method_chart(of, measure) for measure in of.measures]


def _method_chart(of: Comparison, measure: Measure) -> Rows:
    values = [s.get(k) for m in of.methods for s in [score_of(m, measure)] for k in ("value", "low", "high")]
    values += [run.get(measure.key) for m in of.methods for run in m["runs"]]
    scale = Scale.of([v for v in values if v is not None and known(v)], zero=not measure.higher_is_better)
    rows = [_method_row(m, of.style(m), measure, scale) for m in of.methods]
    return Rows(measure.name, rows, scale.ticks())


def _method_row(method: Method, style: str, measure: Measure, scale: Scale) -> Row:
    score = score_of(method, measure)
    marks = [
        Mark(r[measure.key], f"{style} small", f"fold {r['fold']}, seed {r['seed']}: {number(r[measure.key])}")
        for r in method["runs"]
        if known(r.get(measure.key))
    ]
    between = (score["low"], score["high"]) if interval(score) else None
    text = number(score.get("value"))
    if known(score.get("value")):
        marks.append(Mark(score["value"], style, f"{method['name']}: {text}, 95 % {interval(score) or 'not known'}"))
    alt = f"{method['name']}: {measure.name} {text}, interval {interval(score) or 'not known'}"
    return Row(method["name"], dot_row(scale, marks, alt, between, style), text)


def subject_chart(folds: Folds, of: Comparison) -> Rows:
    """A row for each subject, a dot for each method."""
    each = {m["name"]: m.get("per_subject") or {} for m in of.methods}
    flags = {s: "seen unlabelled" if about.get("pretrained_on") else "" for s, about in folds.tested.items()}
    return _grouped(of, folds.tested, each, of.measure, flags)


def strip_chart(of: Comparison) -> Rows | None:
    """A row for each method, a faint dot for each subject and a strong one in their middle."""
    told = [m for m in of.methods if m.get("per_subject")]
    each = {m["name"]: [(s, a.get(of.measure.key)) for s, a in m["per_subject"].items()] for m in told}
    known_of = {name: [(s, v) for s, v in of_all if known(v)] for name, of_all in each.items()}
    values = [v for pairs in known_of.values() for _, v in pairs]
    if not values:
        return None
    scale = Scale.of(values, zero=not of.measure.higher_is_better)
    return Rows(of.measure.name, [_strip(m, of.style(m), known_of[m["name"]], scale) for m in told], scale.ticks())


def _strip(method: Method, style: str, of: Sequence[tuple[str, float]], scale: Scale) -> Row:
    middle = median(v for _, v in of) if of else None
    marks = [Mark(v, f"{style} small", f"{s}: {number(v)}") for s, v in of]
    if middle is not None:
        marks.append(Mark(middle, style, f"{method['name']}: median {number(middle)}"))
    alt = f"{method['name']}: median of {count(len(of), 'subject')} {number(middle)}"
    return Row(method["name"], dot_row(scale, marks, alt), number(middle))


def class_chart(folds: Folds, of: Comparison) -> Rows:
    """A row for each class, a dot for each method's F1."""
    each = {m["name"]: m.get("per_class") or {} for m in of.methods}
    return _grouped(of, folds.classes or [], each, Measure("f1", "F1"), {})


def _grouped(
    of: Comparison, names: Any, each: Mapping[str, Mapping[str, Any]], measure: Measure, flags: Mapping[str, str]
) -> Rows:
    values = [about.get(measure.key) for told in each.values() for about in told.values()]
    scale = Scale.of([v for v in values if v is not None and known(v)], zero=not measure.higher_is_better)
    rows = []
    for name in names:
        found = [(m, each[m["name"]].get(name, {}).get(measure.key)) for m in reversed(of.methods)]
        marks = [Mark(v, of.style(m), f"{m['name']}: {number(v)}") for m, v in found if known(v)]
        alt = f"{name}: " + ", ".join(f"{m['name']} {number(v)}" for m, v in reversed(found))
        ours = each[of.ours["name"]].get(name, {}).get(measure.key)
        rows.append(Row(name, dot_row(scale, marks, alt), number(ours), flags.get(name, "")))
    return Rows(measure.name, rows, scale.ticks())


def subject_table(folds: Folds, of: Comparison) -> list[dict[str, Any]]:
    """A line for each subject, with every score of every method."""
    lines = []
    for name, about in folds.tested.items():
        told = [(m.get("per_subject") or {}).get(name) or {} for m in of.methods]
        lines.append(
            {
                "name": name,
                "fold": about.get("fold"),
                "seen": {True: "seen", False: "not seen", None: "unknown"}[about.get("pretrained_on")],
                "n": sum((about.get("windows") or {}).values()),
                "cells": [[number(t.get(measure.key)) for measure in of.measures] for t in told],
            }
        )
    return lines


def class_table(per_class: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each class."""
    return [
        {
            "name": name,
            "support": f"{of.get('support', 0):,}",
            "subjects": of.get("subjects"),
            "cells": [number(of.get(k)) for k in ("precision", "recall", "f1")],
            "interval": interval({"low": of.get("f1_low"), "high": of.get("f1_high")}),
            "auroc": number(of.get("auroc")),
        }
        for name, of in per_class.items()
    ]


def confusion(name: str, style: str, classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> Confusion:
    """Rows are true classes."""
    cells = [[(int(n), round(n / max(1, sum(row)), 3)) for n in row] for row in matrix]
    return Confusion(name, style, list(classes), cells)


def windows_chart(folds: Folds) -> Rows:
    """How many labelled windows each class has."""
    subjects = folds.tested.values()
    names = folds.classes or sorted({name for about in subjects for name in about.get("windows") or {}})
    total = {name: sum((about.get("windows") or {}).get(name, 0) for about in subjects) for name in names}
    carriers = {name: sum(bool((about.get("windows") or {}).get(name)) for about in subjects) for name in names}
    scale = Scale.of([*total.values(), 1], zero=True)
    colours = class_colours(len(names))
    rows = [
        Row(name, bar_row(scale, n, f"{name}: {n} windows", colours[k]), f"{n:,}", count(carriers[name], "subject"))
        for k, (name, n) in enumerate(total.items())
    ]
    return Rows("labelled windows", rows, scale.ticks(4))


def windows_table(folds: Folds) -> list[tuple[str, list[tuple[int, float]]]]:
    """Subject -> windows of each class, with the share of the subject's."""
    names = folds.classes or []
    lines = []
    for subject, about in folds.tested.items():
        counts = [int((about.get("windows") or {}).get(name, 0)) for name in names]
        lines.append((subject, [(n, round(n / max(1, sum(counts)), 3)) for n in counts]))
    return lines
