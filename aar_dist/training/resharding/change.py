"""Whether a checkpoint was written by another cluster, and what to tell a person of it."""

from collections.abc import Mapping
from typing import Any

from aar_dist.training.checkpoints import Saved
from aar_dist.training.config import LoopConfig

DEFAULTS = {"offload": "none", "zero_options": {}}


def changed(saved: Mapping[str, Any], layout: Mapping[str, Any]) -> list[str]:
    """Entries of a layout that are not what they were; [] if DeepSpeed can load its own files."""
    return [key for key, value in layout.items() if saved.get(key, DEFAULTS.get(key)) != value]


def told(saved: Saved, layout: Mapping[str, Any], train: LoopConfig) -> str:
    """One line: from where to where, and how the batch is shared out now."""
    keys = changed(saved.layout, layout)
    line = f"resharding step {saved.step} from {_words(saved.layout, keys)} to {_words(layout, keys)}"
    before, now = (_batches(train, each["ranks"]) for each in (saved.layout, layout))
    parts = [
        f"{name} {old} -> {new}"
        for name, old, new in zip(("micro-batch", "accumulation"), before, now, strict=True)
        if old != new and old
    ]
    return f"{line}; {', '.join(parts)}" if parts else line


def _words(layout: Mapping[str, Any], keys: list[str]) -> str:
    ranks = layout["ranks"]
    words = f"{ranks} rank{'s' * (ranks != 1)} at ZeRO {layout['zero_stage']}"
    more = [
        f"{key} {layout.get(key, DEFAULTS.get(key))}" for key in ("precision", "offload", "zero_options") if key in keys
    ]
    return f"{words} ({', '.join(more)})" if more else words


def _batches(train: LoopConfig, ranks: int) -> tuple[int, int]:
    """(0, 0) where the batch, which may have changed as well, is not shared equally by so many."""
    return train.micro_batches(ranks) if train.batch_size % ranks == 0 else (0, 0)
