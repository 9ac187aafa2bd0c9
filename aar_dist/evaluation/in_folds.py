"""A baseline in one fold, answered in the same form as a network's, so that both are written and scored alike.

Windows, WindowTable, Folds -> train on the train and validation subjects, say the test ones -> Predictions
"""

from typing import Any

import numpy as np

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.arrays import Windows
from aar_dist.evaluation.baselines import BASELINES, OF_TARGETS, ClassWeight, baseline
from aar_dist.stream.windows import WindowTable
from aar_dist.training.finetuning.folds import Folds
from aar_dist.training.finetuning.predictions import Predictions


def baseline_in_fold(
    name: str,
    windows: Windows,
    table: WindowTable,
    folds: Folds,
    number: int,
    *,
    class_weight: ClassWeight = None,
    seed: int = 578,
    **more: Any,
) -> Predictions:
    """What a baseline says of the test side of a fold.

    It has no need of selection, so it also learns from the subjects that a network holds out for that.

    Args:
        name: One of :data:`aar_dist.evaluation.baselines.BASELINES`.
        windows: All windows of ``table``, in its order.
        table: Windows with classes, or with targets.
        folds: Made for these windows.
        number: Of the fold, from 0.
        class_weight: ``balanced`` gives every class the same share.
        seed: Of what the method draws.
        more: Arguments of that method alone (``n_kernels``).
    """
    _check_kind(name, table)
    fold = folds.fold(number)
    train, test = np.isin(table.subject, [*fold.train, *fold.validation]), np.isin(table.subject, fold.test)
    if not train.any() or not test.any():
        raise ConfigError(f"fold {number} has no window on its {'test' if train.any() else 'train'} side")
    sides, n_classes = (windows.select(train), windows.select(test)), len(table.classes or ())
    said = baseline(name)(*sides, n_classes, class_weight=class_weight, seed=seed, **more)
    if table.classes is None:
        return Predictions(table.select(test), said.label)
    if said.probability is None:
        return Predictions(table.select(test), np.eye(len(table.classes), dtype=np.float32)[said.label], graded=False)
    return Predictions(table.select(test), said.probability)


def _check_kind(name: str, table: WindowTable) -> None:
    if name in BASELINES and (name in OF_TARGETS) != (table.classes is None):
        kinds = ("classes", "targets") if table.classes is None else ("targets", "classes")
        raise ConfigError(f"baseline {name} is for {kinds[0]}, but the labels of these windows are {kinds[1]}")
