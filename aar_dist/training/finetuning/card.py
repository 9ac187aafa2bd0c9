"""What a person is told of a fine-tuned model."""

from collections.abc import Mapping
from typing import Any

from aar_dist.training.finetuning.config import FinetuneConfig
from aar_dist.training.finetuning.task import Task

HEADLINE = ("accuracy", "balanced_accuracy", "macro_f1", "mae", "rmse", "r")


def headline(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores that sum up all others; {} without a test."""
    return {name: scores[name] for name in HEADLINE if scores.get(name) is not None}


def headline_text(scores: Mapping[str, Any]) -> str:
    """The same in words."""
    return "  ".join(f"{name} {value:.4g}" for name, value in headline(scores).items()) or "none: every subject trained"


def card(config: FinetuneConfig, scores: Mapping[str, Any], task: Task, about: Mapping[str, Any]) -> str:
    """Markdown."""
    labels = "a target" if task.classes is None else ", ".join(task.classes)
    start = about["init_from"] or "random weights"
    lines = [
        f"# {config.store.name}",
        "",
        f"{config.model.class_path.rpartition('.')[2]} with {config.objective.class_path.rpartition('.')[2]}, from "
        f"{start}, trained: {about['adapted']}; weights of step {about['best_step']} of {about['steps']}.",
        "",
        f"- says: {labels}",
        f"- windows: {config.data.segment_duration:g} s of {', '.join(task.source.channels)}; normalisation: "
        f"{config.data.normalize}",
        *([f"- channels: {task.channels}"] if task.channels else []),
        f"- data sets: {', '.join(task.datasets)} (shard set {task.source.identity[:12]})",
        *_side("trained on", len(task.train), task.sides.train),
        *_side("selected on", len(task.validation), task.sides.validation),
        *_side("tested on", len(task.test), task.sides.test),
        f"- test: {headline_text(scores)}",
    ]
    return "\n".join([*lines, *_per_class(scores)]) + "\n"


def _side(verb: str, n_windows: int, subjects: tuple[str, ...]) -> list[str]:
    return [f"- {verb}: {n_windows} windows of {', '.join(subjects)}"] if subjects else []


def _per_class(scores: Mapping[str, Any]) -> list[str]:
    if not scores.get("per_class"):
        return []
    lines = ["", "| class | windows | precision | recall | F1 |", "|---|---|---|---|---|"]
    for name, of in scores["per_class"].items():
        cells = ["-" if of[key] is None else f"{of[key]:.3f}" for key in ("precision", "recall", "f1")]
        lines.append(f"| {name} | {of['support']} | {' | '.join(cells)} |")
    return lines
