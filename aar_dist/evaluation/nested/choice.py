"""The candidates of a fold are trained: which one goes on, and how its run becomes the fold's.

    candidates' trained.json -> choice.json in the best one's folder -> that folder is renamed to be the fold's

A kill at any moment leaves either the candidates or the fold: the rename is the only step that counts.
"""

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aar_dist.base import storage
from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.nested.grid import told
from aar_dist.training.finetuning.trained import CHOICE, TRAINED

BY = "validation loss"


def choose(settings: Sequence[Mapping[str, Any]], folders: Sequence[Path], into: Path) -> int:
    """Give the run of the best candidate to its fold, unless that is done; returns which it is.

    Args:
        settings: What each candidate tries.
        folders: Where each was trained.
        into: Folder of the fold.

    Raises:
        ConfigError: not one has a validation loss.
    """
    if not (into / CHOICE).exists():
        made = _record(settings, [storage.read_json(folder / TRAINED) for folder in folders])
        best = folders[made["chosen"]]
        with storage.one_line_errors(into):
            storage.write_json(best / CHOICE, made)
            into.parent.mkdir(parents=True, exist_ok=True)
            os.rename(best, into)
            storage.fsync_entry(into)
    for folder in folders:  # their curves stay
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return int(storage.read_json(into / CHOICE)["chosen"])


def _record(settings: Sequence[Mapping[str, Any]], trained: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What there was to choose from, and which it is: the lowest loss, the first of equals."""
    losses = [_loss(one) for one in trained]
    if not math.isfinite(min(losses)):
        raise ConfigError(
            f"nothing to choose: no candidate has a finite validation loss ({'; '.join(map(told, settings))}); "
            "choose from other values"
        )
    candidates = [{"settings": dict(of), **one} for of, one in zip(settings, trained, strict=True)]
    return {"by": BY, "chosen": losses.index(min(losses)), "candidates": candidates}


def best_of_all(choices: Sequence[Mapping[str, Any]]) -> int:
    """The candidate with the lowest mean validation loss over all folds, for a last model on all subjects; the first of
    equals."""
    losses = [[_loss(one) for one in made["candidates"]] for made in choices]
    means = [sum(of) / len(of) for of in zip(*losses, strict=True)]
    return means.index(min(means))


def _loss(trained: Mapping[str, Any]) -> float:
    value = math.inf if trained["val_loss"] is None else float(trained["val_loss"])
    return value if math.isfinite(value) else math.inf  # what is no number is the worst, wherever it stands
