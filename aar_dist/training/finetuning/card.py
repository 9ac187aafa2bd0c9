"""What a person is told of a fine-tuned model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aar_dist.training.cards.data import data_part
from aar_dist.training.cards.loading import loading_part
from aar_dist.training.cards.results import of_folds, per_class
from aar_dist.training.finetuning.config import FinetuneConfig
from aar_dist.training.finetuning.task import Task

HEADLINE = ("accuracy", "balanced_accuracy", "macro_f1", "mae", "rmse", "r")


def headline(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores that sum up all others; {} without a test."""
    return {name: scores[name] for name in HEADLINE if scores.get(name) is not None}


def headline_text(scores: Mapping[str, Any]) -> str:
    """The same in words."""
    return "  ".join(f"{name} {value:.4g}" for name, value in headline(scores).items()) or "none: every subject trained"


def card(config: FinetuneConfig, scores: Mapping[str, Any], task: Task, about: Mapping[str, Any], run: Path) -> str:
    """Markdown.

    Args:
        scores: Of its own test; {} without one.
        about: How the weights came about.
        run: Directory of the run, beside which the folds of the same recipe may have left their results.
    """
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
        *_side("trained on", len(task.train), task.sides.train),
        *_side("selected on", len(task.validation), task.sides.validation),
        *_side("tested on", len(task.test), task.sides.test),
        *data_part(task.source, task.datasets, task.source.channels),
        "",
        "## Results",
        "",
        f"Test: {headline_text(scores)}",
        *per_class(scores),
        *(of_folds(run.parent / "results.json", task.source.identity) if config.split.fold == "all" else []),
        *loading_part(config.store.name, predicts=True),
    ]
    return "\n".join(lines) + "\n"


def _side(verb: str, n_windows: int, subjects: tuple[str, ...]) -> list[str]:
    return [f"- {verb}: {n_windows} windows of {', '.join(subjects)}"] if subjects else []
