"""A training run as a part of the page.

A pretraining is judged by the hidden parts it fills, a fine-tuning by what it said of its test side.
"""

import base64
import re
from pathlib import Path
from typing import Any

import numpy as np

from aar_dist.base import storage
from aar_dist.base.timelines import class_colours
from aar_dist.report import animals, scores
from aar_dist.report.curves import last, run_panels
from aar_dist.report.folders import Run
from aar_dist.report.numbers import MEASURES, count, known, number
from aar_dist.report.predicted import read_predictions
from aar_dist.report.shard_sets import ShardSet, shard_sets
from aar_dist.report.stored import stored_model, told_of


def run_part(run: Run) -> dict[str, Any]:
    """What the template needs."""
    stored = _stored(run)
    sets = shard_sets(run.shards, run.path, stored["shards it was trained on"])
    return {
        "kind": run.kind,
        "name": _name(run),
        "about": f"{run.kind} run, {count(int(last(run.rows, 'step') or 0), 'step')}",
        "headline": _headline(run),
        "brief": _brief(run),
        "remarks": _remarks(run),
        "simulated": sorted({name for one in sets for name in one.simulated}),
        "unknown_origin": [one.name for one in sets if one.problem],
        "unfinished": "" if run.finished is not None else _unfinished(run),
        "failures": [],
        "leaks": 0,
        "sets": sets,
        "panels": run_panels(run),
        "phases": any("phase" in row for row in run.rows),
        "pictures": newest_picture(run.path / "pictures"),
        **_tested(run),
        "reproduce": _reproduce(run, sets, stored),
    }


def _name(run: Run) -> str:
    store = run.config.get("store") or {}
    return str((run.finished or {}).get("model") or store.get("name") or run.name)


def _unfinished(run: Run) -> str:
    most = (run.config.get("train") or {}).get("max_steps")
    of = f" of at most {most:,}" if isinstance(most, int) else ""
    return f"This run is not finished: it stands at step {int(last(run.rows, 'step') or 0):,}{of}."


def _trained_on_all(run: Run) -> bool:
    """Whether no subject was left to select or test with."""
    return (run.config.get("split") or {}).get("fold") == "all"


def _brief(run: Run) -> str:
    """What the overview says."""
    if run.scores:
        told = [f"{m.name} {number(run.scores[m.key])}" for m in MEASURES if known(run.scores.get(m.key))]
        return ", ".join(told)
    if _trained_on_all(run):
        return "trained on all subjects"
    mse, line, loss = (last(run.rows, f"val/{name}") for name in ("masked_mse", "interpolation_mse", "loss"))
    if mse is not None and line is not None:
        return f"error of hidden parts {number(mse)}, of a straight line {number(line)}"
    return "no validation yet" if loss is None else f"validation loss {number(loss)}"


def _headline(run: Run) -> str:
    if run.scores:
        n = count(int(run.scores.get("n", 0)), "window")
        chosen = (run.config.get("split") or {}).get("test")
        side = "the subjects chosen for the test" if chosen else f"the test side of fold {run.scores.get('fold')}"
        return f"{_brief(run)} on {n} of {side}; one fold has no interval."
    if _trained_on_all(run):
        return "Every subject trained this model: nothing here says how it does on others; its folds do."
    mse, line = last(run.rows, "val/masked_mse"), last(run.rows, "val/interpolation_mse")
    if mse is not None and line is not None:
        word = "less" if mse < line else "more"
        return (
            f"On subjects held out from pretraining it fills hidden parts with a mean square error of {number(mse)}, "
            f"{word} than a straight line through them ({number(line)})."
        )
    loss = last(run.rows, "val/loss")
    if loss is not None:
        return f"The last validation loss is {number(loss)}."
    return "There is no validation loss yet: nothing can be said of subjects that were held out."


def _remarks(run: Run) -> list[str]:
    if run.scores:
        return ["No baseline stands beside this run; launch/folds.py compares it on every subject."]
    if run.kind == "fine-tuning":
        return []
    keys = sorted({k.split("/", 2)[2] for row in run.rows for k in row if k.startswith("val/masked_mse/")})
    said = []
    for name in keys:
        mse, line = (last(run.rows, f"val/{what}/{name}") for what in ("masked_mse", "interpolation_mse"))
        if mse is not None and line is not None:
            word = "less" if mse < line else "more"
            said.append(f"{name}: {number(mse)}, {word} than the straight line ({number(line)}).")
    said.append(
        "A small error says that the signal is predicted well, not that behaviours can be told apart: folds say that."
    )
    return said


def newest_picture(folder: Path) -> dict[str, str] | None:
    """Name and data of the last one; None if there is none."""
    found = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if not found:
        return None
    data = base64.b64encode(found[-1].read_bytes()).decode()
    return {"name": re.sub(r"_0*(?=\d)", " ", found[-1].stem), "data": f"data:image/png;base64,{data}"}


def _tested(run: Run) -> dict[str, Any]:
    told = run.scores or {}
    classes = told.get("classes")
    part: dict[str, Any] = {"classes": classes, "class_tables": [], "confusions": [], "animals": [], "legend": []}
    if not classes:
        return part
    said = read_predictions(sorted(run.path.glob("predictions_fold_*.parquet"))[-1:])
    if said is not None:
        part["animals"] = animals.animals(said, classes, np.unique(said["subject"]).tolist())
        part["legend"] = list(zip(classes, class_colours(len(classes)), strict=True))
    part["class_tables"] = [(run.name, "m0", scores.class_table(told["per_class"]))]
    part["confusions"] = [scores.confusion(run.name, "m0", classes, told["confusion"])]
    return part


def _stored(run: Run) -> dict[str, str | None]:
    """What the store says of the model that it left there."""
    finished = run.finished or {}
    store = finished.get("store") or (run.config.get("store") or {}).get("path")
    return told_of(stored_model(finished.get("model"), store, run.path))


def _reproduce(run: Run, sets: list[ShardSet], stored: dict[str, str | None]) -> dict[str, Any]:
    train = run.config.get("train") or {}
    identities = [f"{one.name}: {one.summary.identity if one.summary else 'not known, ' + one.problem}" for one in sets]
    facts = {
        "folder": run.name,
        "model": (run.finished or {}).get("model"),
        **stored,
        "starts from": (not run.config.get("from_scratch") and run.config.get("init_from")) or "random weights",
        "seed": train.get("seed"),
        "shards": None if stored["shards it was trained on"] else "; ".join(identities) or None,
        "sha256 of metrics.jsonl": storage.sha256(run.path / "metrics.jsonl"),
    }
    launch = "launch/pretrain.py" if run.kind == "pretraining" else "launch/finetune.py"
    return {
        "facts": {k: v for k, v in facts.items() if v is not None},
        "command": f"deepspeed {launch} --config {run.name}/config.yaml --out NEW_FOLDER",
        "versions": {},
        "hashes": {},
        "config": run.config_text,
    }
