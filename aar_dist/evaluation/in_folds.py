"""A baseline or a probe in one fold, answered in the form of a network's, so that all are written and scored alike.

Windows, WindowTable, Folds -> train on the train and validation subjects, say the test ones -> Predictions
FinetuneConfig -> embeddings of all windows -> learn from the train side, choose by validation -> Predictions
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.arrays import Windows
from aar_dist.evaluation.baselines import BASELINES, BY_SUBJECT, OF_TARGETS, ClassWeight, baseline
from aar_dist.evaluation.embedded import embedded
from aar_dist.evaluation.probes import Side, probe
from aar_dist.stream.windows import WindowTable, open_windows
from aar_dist.training.finetuning.config import FinetuneConfig
from aar_dist.training.finetuning.folds import Folds
from aar_dist.training.finetuning.predictions import Predictions
from aar_dist.training.finetuning.split import Sides, SplitConfig, few
from aar_dist.training.finetuning.task import open_task


def baseline_in_fold(
    name: str,
    windows: Windows,
    table: WindowTable,
    folds: Folds,
    number: int,
    *,
    class_weight: ClassWeight = None,
    split: SplitConfig | None = None,
    seed: int = 578,
    **more: Any,
) -> Predictions:
    """What a baseline says of the test side of a fold.

    It has no need of selection, so it also learns from the subjects that a network holds out for that; but where
    ``split.train_share`` leaves few subjects, from these alone.

    Args:
        name: One of :data:`aar_dist.evaluation.baselines.BASELINES`.
        windows: All windows of ``table``, in its order.
        table: Windows with classes, or with targets.
        folds: Made for these windows.
        number: Of the fold, from 0.
        class_weight: ``balanced`` gives every class the same share.
        split: Its ``train_share``; None for all.
        seed: Of what the method draws.
        more: Arguments of that method alone (``n_kernels``).
    """
    _check_kind(name, table)
    fold = folds.fold(number)
    learns = (*fold.train, *fold.validation)
    if split and split.train_share < 1:
        learns = few(Sides(fold.train, fold.validation, fold.test), table, split).train
    train, test = np.isin(table.subject, learns), np.isin(table.subject, fold.test)
    if not train.any() or not test.any():
        raise ConfigError(f"fold {number} has no window on its {'test' if train.any() else 'train'} side")
    sides, n_classes = (windows.select(train), windows.select(test)), len(table.classes or ())
    more |= {"subject": table.subject[train]} if name in BY_SUBJECT else {}
    said = baseline(name)(*sides, n_classes, class_weight=class_weight, seed=seed, **more)
    if table.classes is None:
        return Predictions(table.select(test), said.label)
    if said.probability is None:
        return Predictions(table.select(test), np.eye(len(table.classes), dtype=np.float32)[said.label], graded=False)
    return Predictions(table.select(test), said.probability)


@dataclass(frozen=True)
class Probed:
    """What a probe says in one fold, and how it was chosen."""

    test: Predictions
    validation: Predictions
    """Of the side that chose; maybe no window."""
    chosen: dict[str, float]
    """As of :class:`aar_dist.evaluation.probes.Fitted`."""


def probe_in_fold(name: str, config: FinetuneConfig, kept: Path) -> Probed:
    """What a probe of the model that a recipe starts from says of the windows of its fold.

    Like a network it learns from the train side alone: the validation subjects choose.

    Args:
        name: One of :data:`aar_dist.evaluation.probes.PROBES`.
        config: The recipe of this fold; ``from_scratch`` for a backbone of random weights.
        kept: Folder of the embeddings that all folds share.
    """
    task = open_task(config)
    vectors, (_, table) = embedded(config, task, kept), open_windows(config.data, config.windows)

    def side(part: WindowTable) -> Side:
        mask = np.isin(table.subject, np.unique(part.subject))
        return Side(vectors[mask], part.label)

    train, validation, test = (side(part) for part in (task.train, task.validation, task.test))
    n_classes = None if task.classes is None else len(task.classes)
    weight: ClassWeight = "balanced" if config.train.evens_classes else None
    made = probe(name, train, validation, n_classes, class_weight=weight)
    return Probed(
        Predictions(task.test, made.say(test.vectors)),
        Predictions(task.validation, made.say(validation.vectors) if len(validation.label) else test.vectors[:0]),
        made.chosen,
    )


def _check_kind(name: str, table: WindowTable) -> None:
    if name in BASELINES and (name in OF_TARGETS) != (table.classes is None):
        kinds = ("classes", "targets") if table.classes is None else ("targets", "classes")
        raise ConfigError(f"baseline {name} is for {kinds[0]}, but the labels of these windows are {kinds[1]}")
