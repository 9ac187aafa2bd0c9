"""A folds folder as a part of the page: the headline first, then what carries it, then what reproduces it."""

from typing import Any

from aar_dist.base import storage
from aar_dist.base.timelines import class_colours
from aar_dist.evaluation.nested.wording import HEADS, choices_rows
from aar_dist.report import animals, scores
from aar_dist.report.certainty import certainty, few_shot, wanted
from aar_dist.report.compare import Comparison, comparison, failures, headline, measured, remarks, score_of
from aar_dist.report.curves import fold_panels
from aar_dist.report.differences import differences
from aar_dist.report.embedding import embedding_map
from aar_dist.report.folders import RESULTS, Folds, read_json
from aar_dist.report.numbers import count, interval, number
from aar_dist.report.predicted import Table, predictions
from aar_dist.report.shard_sets import ShardSet, shard_sets
from aar_dist.report.stored import stored_model, told_of


def folds_part(folds: Folds) -> dict[str, Any]:
    """What the template needs."""
    of, results = comparison(folds), folds.results
    said = predictions(folds, of.ours, of.ours["seeds"][0]) if of.ours.get("seeds") else None
    sets = shard_sets(folds.shards, folds.path, results.get("shards"))
    return {
        "kind": "folds",
        "name": results["name"],
        "about": measured(folds),
        "headline": headline(folds, of),
        "remarks": remarks(folds, of),
        "simulated": _simulated(folds, sets),
        "unfinished": _unfinished(folds),
        "failures": failures(folds),
        "leaks": len((results.get("audit") or {}).get("leaks") or []),
        "summary": _summary(of),
        "methods": [{"name": m["name"], "kind": m["kind"], "style": of.style(m)} for m in of.methods],
        "measures": [m.name for m in of.measures],
        "measure": of.measure.name,
        "ours": of.ours["name"],
        "classes": folds.classes,
        "method_table": scores.method_table(folds, of),
        "method_charts": scores.method_charts(of),
        "choices": {"heads": HEADS, "rows": choices_rows(of.methods)},
        "seen": any(about.get("pretrained_on") for about in folds.tested.values()),
        "subject_chart": scores.subject_chart(folds, of),
        "subject_table": scores.subject_table(folds, of),
        "strip_chart": scores.strip_chart(of),
        "worst": (of.ours.get("worst_subjects") or [])[: max(1, len(folds.tested) // 2)],
        **differences(folds, of),
        **certainty(of),
        "wanted": wanted(of),
        "agreement": _agreement(of),
        "few_shot": few_shot(folds, of),
        "few_methods": [
            {"name": m["name"], "style": of.style(m)}
            for m in of.methods
            if any(row["method"] == m["name"] for row in results.get("few_shot") or [])
        ],
        **_classes(folds, of),
        "windows_chart": scores.windows_chart(folds),
        "windows_table": scores.windows_table(folds),
        "sets": sets,
        "panels": fold_panels(folds, of),
        "map": embedding_map(folds.path / "embeddings.parquet"),
        "map_of": "labelled windows as the stored model sees them before any fine-tuning",
        **_timelines(folds, said),
        "audit": _audit(folds),
        "reproduce": _reproduce(folds),
    }


def _simulated(folds: Folds, sets: list[ShardSet]) -> list[str]:
    """Those that results.json names, and what the shard sets say themselves."""
    told = {name for one in sets for name in one.simulated} & set(folds.results["datasets"])
    return sorted(told | set(folds.results.get("simulated") or []))


def _unfinished(folds: Folds) -> str:
    """Empty if every method has all its runs."""
    n = folds.results["n_folds"]
    lacking = [
        f"{m['name']} {len(m['runs'])} of {n * len(m['seeds'])}"
        for m in folds.methods
        if len(m["runs"]) < n * len(m["seeds"])
    ]
    return f"Not every fold has a result: {', '.join(lacking)}." if lacking else ""


def _audit(folds: Folds) -> dict[str, Any]:
    """What results.json says, with those pairs alone under ``shared`` that leak in no fold; empty without an audit."""
    audit = folds.results.get("audit") or {}
    leaking = [(pair["first"], pair["second"]) for pair in audit.get("leaks") or []]
    harmless = [pair for pair in audit.get("shared") or [] if (pair["first"], pair["second"]) not in leaking]
    return audit | {"shared": harmless} if audit else {}


def _summary(of: Comparison) -> dict[str, str]:
    """One line of the overview."""
    told = {"measure": of.measure.name}
    for key, method in (("ours", of.ours), ("baseline", of.baseline), ("scratch", of.scratch)):
        score = score_of(method, of.measure) if method else {}
        told[key] = f"{method['name']} {number(score.get('value'))}" if method else "–"
        told[f"{key}_interval"] = interval(score)
    return told


def _classes(folds: Folds, of: Comparison) -> dict[str, Any]:
    if folds.classes is None:
        return {"class_chart": None, "class_tables": [], "confusions": []}
    told = [m for m in of.methods if m.get("per_class")]
    drawn = [m for m in of.methods if m.get("confusion")]
    return {
        "class_chart": scores.class_chart(folds, of),
        "class_tables": [(m["name"], of.style(m), scores.class_table(m["per_class"])) for m in told],
        "confusions": [scores.confusion(m["name"], of.style(m), folds.classes, m["confusion"]) for m in drawn],
    }


def _agreement(of: Comparison) -> list[tuple[str, list[str]]]:
    """For a target: method -> bias, its limits of agreement, median and 95th percentile of the error."""
    told = [(m["name"], m["agreement"]) for m in of.methods if m.get("agreement")]
    keys = ("bias", "low", "high", "median_error", "error_95")
    return [(name, [number(of.get(key)) for key in keys]) for name, of in told]


def _timelines(folds: Folds, said: Table | None) -> dict[str, Any]:
    nothing: dict[str, Any] = {"animals": [], "legend": [], "target_panels": [], "target_cloud": None}
    if said is None:
        return nothing
    if folds.classes is None:
        return nothing | {
            "target_panels": animals.target_panels(said, list(folds.tested)),
            "target_cloud": animals.target_cloud(said),
        }
    legend = list(zip(folds.classes, class_colours(len(folds.classes)), strict=True))
    return nothing | {
        "animals": animals.animals(said, folds.classes, list(folds.tested)),
        "legend": legend,
    }


def _reproduce(folds: Folds) -> dict[str, Any]:
    results = folds.results
    facts = {
        "made": results.get("made_at"),
        "folder": folds.name,
        "starts from": results.get("init_from") or "random weights",
        **told_of(stored_model(results.get("init_from"), (folds.config.get("store") or {}).get("path"), folds.path)),
        "shards of the folds": results.get("shards"),
        "final model, of all subjects": (read_json(folds.path / "final" / "finished") or {}).get("model"),
        "seeds": ", ".join(map(str, results.get("seeds") or [])),
        "folds": count(results["n_folds"], "fold"),
        "windows": ", ".join(f"{k} {v}" for k, v in (results.get("windows") or {}).items() if v is not None),
        f"sha256 of {RESULTS}": storage.sha256(folds.path / RESULTS),
    }
    return {
        "facts": {k: v for k, v in facts.items() if v},
        "command": results.get("command") or "",
        "versions": results.get("versions") or {},
        "hashes": results.get("hashes") or {},
        "config": folds.config_text,
    }
