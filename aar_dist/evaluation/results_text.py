"""results.json in words and Markdown tables.

results -> headline (a few lines for the terminal), as_markdown (a page)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aar_dist.base.metrics import ERRORS, MAIN, SCORES
from aar_dist.base.stats.ordering import AUROC
from aar_dist.evaluation.nested.wording import choices_table
from aar_dist.evaluation.review.wording import (
    DASH,
    NAMES,
    difference,
    few_shot_table,
    number,
    sureness_table,
    table,
    tests_table,
    verdicts,
    with_interval,
)

Results = Mapping[str, Any]


def headline(results: Results) -> str:
    """What a person wants to know first."""
    lines = [f"{results['name']}: all test windows of {results['n_folds']} folds, 95 % intervals over subjects"]
    if results["simulated"]:
        lines.append(f"  SIMULATED data ({', '.join(results['simulated'])}): this says nothing about animals")
    width = max(len(method["name"]) for method in results["methods"])
    for method in results["methods"]:
        scores = method["scores"]
        said = "  ".join(f"{NAMES[n]} {with_interval(s)}" for n, s in scores.items()) if scores else "not complete"
        lines.append(f"  {method['name']:<{width}}  {said}")
    main = next(name for name in MAIN if name in (ERRORS if results["classes"] is None else SCORES))
    return "\n".join([*lines, *(f"  {line}" for line in verdicts(results, main))])


def as_markdown(results: Results) -> str:
    """All tables."""
    names = ERRORS if results["classes"] is None else SCORES
    main = next(name for name in MAIN if name in names)
    lines = [
        *_head(results),
        *_scores(results, names, main),
        *tests_table(results["comparisons"], main),
        *_differences(results["comparisons"], names, "Differences on the same draws of subjects, by every score:"),
        *choices_table(results["methods"]),
        *_unseen(results, names),
        *few_shot_table(results, names),
        *sureness_table(results),
        *_classes(results),
        *_subjects(results, main),
    ]
    for failed in results["failed"]:
        lines += ["", f"FAILED: {failed['method']}, seed {failed['seed']}, fold {failed['fold']}: {failed['reason']}"]
    return "\n".join([*lines, "", f"`{results['command']}`"]) + "\n"


def _head(results: Results) -> list[str]:
    seeds = ", ".join(map(str, results["seeds"]))
    lines = [
        f"# {results['name']}",
        "",
        f"{', '.join(results['datasets'])}; windows of {results['windows']['segment_duration']:g} s; "
        f"{results['n_folds']} folds by subject, seeds {seeds}; started from "
        f"{results['init_from'] or 'random weights'}.",
    ]
    if results["simulated"]:
        lines += ["", f"**Simulated data** ({', '.join(results['simulated'])}): this says nothing about animals."]
    return lines


def _scores(results: Results, names: Sequence[str], main: str) -> list[str]:
    shown = _with_ordering(names, [m["scores"] for m in results["methods"]])
    heads = ["method", *(NAMES[n] for n in shown), f"{NAMES[main]} over folds", "over seeds"]
    rows = [_method_row(m, shown, main) for m in results["methods"]]
    return ["", "All test windows of all folds together, with 95 % intervals over subjects:", "", *table(heads, rows)]


def _unseen(results: Results, names: Sequence[str]) -> list[str]:
    methods = [m for m in results["methods"] if m.get("unseen")]
    if not methods:
        return []
    shown = _with_ordering(names, [m["unseen"] for m in methods])
    rows = [[m["name"], *_cells(m["unseen"], shown)] for m in methods]
    return [
        "",
        "Of the subjects that pretraining had no recording of:",
        "",
        *table(["method", *(NAMES[n] for n in shown)], rows),
        *_differences(results["comparisons_unseen"], names, "Differences over these subjects:"),
    ]


def _method_row(method: Mapping[str, Any], names: Sequence[str], main: str) -> list[str]:
    scores = method["scores"]
    if not scores:
        return [method["name"], *(["not complete"] * len(names)), DASH, DASH]
    of = scores[main]
    spread = f"{number(of['folds_mean'])} ± {number(of['folds_sd'])}"
    return [method["name"], *_cells(scores, names), spread, f"± {number(of['seeds_sd'])}"]


def _with_ordering(names: Sequence[str], told: Sequence[Mapping[str, Any] | None]) -> tuple[str, ...]:
    """The scores, and AUROC where a method has it."""
    return (*names, AUROC) if any(AUROC in (scores or {}) for scores in told) else tuple(names)


def _cells(scores: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [with_interval(scores[name]) if name in scores else DASH for name in names]


def _differences(pairs: Sequence[Mapping[str, Any]], names: Sequence[str], title: str) -> list[str]:
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for pair in pairs:
        rows.setdefault((pair["a"], pair["b"]), {})[pair["score"]] = difference(pair)
    if not rows:
        return []
    lines = [[f"{a} − {b}", *(of.get(n, DASH) for n in names)] for (a, b), of in rows.items()]
    return ["", title, "", *table(["", *(NAMES[n] for n in names)], lines)]


def _classes(results: Results) -> list[str]:
    whole = [m for m in results["methods"] if m.get("per_class")]
    if not whole:
        return []
    rows = [
        [name, str(_windows(results, name)), *(number(m["per_class"][name]["f1"]) for m in whole)]
        for name in results["classes"]
    ]
    return [
        "",
        "F1 of each class:",
        "",
        *table(["class", "windows", *(m["name"] for m in whole)], rows),
    ]


def _windows(results: Results, name: str) -> int:
    return sum(of["windows"].get(name, 0) for of in results["subjects"].values() if of["fold"] is not None)


def _subjects(results: Results, score: str) -> list[str]:
    whole = [m for m in results["methods"] if m.get("per_subject")]
    if not whole:
        return []
    seen = {True: "yes", False: "no", None: "?"}
    rows = [
        [name, str(of["fold"]), seen[of["pretrained_on"]], str(sum(of["windows"].values()))]
        + [number(m["per_subject"][name][score]) for m in whole if name in m["per_subject"]]
        for name, of in results["subjects"].items()
        if of["fold"] is not None
    ]
    title = f"{NAMES[score]} of each subject:"
    heads = ["subject", "fold", "unlabelled in pretraining", "windows", *(m["name"] for m in whole)]
    worst = [f"{m['name']}: {', '.join(m['worst_subjects'])}" for m in whole if m.get("worst_subjects")]
    least = ["", f"Least good at: {'; '.join(worst)}."] if worst else []
    return ["", title[0].upper() + title[1:], "", *table(heads, rows), *least]
