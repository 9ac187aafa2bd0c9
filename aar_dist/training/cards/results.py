"""How good a model is, in Markdown: by class, and what folds of the same recipe gave."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def per_class(scores: Mapping[str, Any]) -> list[str]:
    """A table in Markdown, if there are classes."""
    if not scores.get("per_class"):
        return []
    lines = ["", "| class | windows | precision | recall | F1 |", "|---|---|---|---|---|"]
    for name, of in scores["per_class"].items():
        cells = ["-" if of[key] is None else f"{of[key]:.3f}" for key in ("precision", "recall", "f1")]
        lines.append(f"| {name} | {of['support']} | {' | '.join(cells)} |")
    return lines


def of_folds(results: Path, shards: str) -> list[str]:
    """What the folds beside a final model say of its recipe; [] where there are none, or of other shards."""
    try:
        told = json.loads(results.read_text())
        method = next(of for of in told["methods"] if of["kind"] == "network" and of["scores"])
        if told["shards"] != shards:
            return []
        seeds = len(method["seeds"])
        lines = [
            "", f"This model has no test of its own: every subject trained. {told['n_folds']} folds of the same recipe "
            f"({method['name']}, {seeds} {'seed' if seeds == 1 else 'seeds'}, every subject tested) gave:", "",
            "| score | value | 95 % interval over subjects |", "|---|---|---|",
        ]  # fmt: skip
        return [*lines, *(_row(name, of) for name, of in method["scores"].items()), *per_class(method)]
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return []


def _row(name: str, of: Mapping[str, Any]) -> str:
    cells = ["-" if of.get(key) is None else f"{of[key]:.3f}" for key in ("value", "low", "high")]
    return f"| {name} | {cells[0]} | {cells[1]} to {cells[2]} |"
