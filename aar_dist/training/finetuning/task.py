"""What is to be learned: from labelled windows and the sides of a split to an objective.

FinetuneConfig -> windows of the three sides, checked -> the objective's arguments that follow from the labels
"""

from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np

from aar_dist.base.config import ClassSpec
from aar_dist.base.errors import ConfigError
from aar_dist.models.channels import with_channels
from aar_dist.models.inflation import Inflation
from aar_dist.objectives.classification import Classification, inverse_frequency
from aar_dist.objectives.regression import Regression
from aar_dist.stream.cuts import channels_of
from aar_dist.stream.source import Source, first_rows, open_source
from aar_dist.stream.windows import WindowTable, open_windows
from aar_dist.training.finetuning.config import FinetuneConfig
from aar_dist.training.finetuning.split import Sides, select, sides


@dataclass(frozen=True, kw_only=True)
class Task:
    """Labelled windows of each side, cut from one source."""

    source: Source
    sides: Sides
    train: WindowTable
    validation: WindowTable
    """Empty without selection."""
    test: WindowTable
    """Empty without a test."""
    missing: tuple[str, ...]
    """Classes without a window on the train side."""
    taught: tuple[str, ...] = ()
    """Subjects that are tested, and whose labels the model that it starts from has learned."""
    channels: Inflation | None = None
    """What becomes of the channels of the model that it starts from; None where nothing does."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """In the order of their numbers; None for a target."""
        return self.train.classes

    @property
    def datasets(self) -> tuple[str, ...]:
        """Those that the windows come from."""
        return tuple(str(name) for name in np.unique(self.train.dataset))

    def amount(self, share: float) -> dict[str, Any]:
        """How much trains: what a ``train_share`` really is, where subjects are few."""
        subjects, unused = len(self.sides.train), len(self.sides.unused)
        told = {"share": share, "subjects": subjects, "of_subjects": subjects + unused, "windows": len(self.train)}
        return told | {"missing_classes": list(self.missing)}


def open_task(config: FinetuneConfig) -> Task:
    """Read the windows and split them.

    Raises:
        ConfigError: windows longer than the model's input, classes that disagree, a side without windows.
    """
    source, table = open_windows(config.data, config.windows)
    _check_length(config, source, table)
    _check_classes(config, table)
    made = sides(config.split, table, source.identity)
    if config.data.normalize == "dataset":  # the same rows, scaled by those who train
        source = open_source(config.data, None, fit={*made.train})
    train = select(table, made.train)
    missing, never = _missing(train), _missing(select(table, (*made.train, *made.unused)))
    if never and not config.train.allow_missing_classes:
        raise ConfigError(
            f"no window to train on has the class {', '.join(never)}: the subjects that train ({len(made.train)}) "
            "never show it; choose windows.classes or other folds, or go on with --allow_missing_classes true"
        )
    return Task(
        source=source,
        sides=made,
        train=train,
        validation=select(table, made.validation),
        test=select(table, made.test),
        missing=missing,
    )


def resolved(config: FinetuneConfig, task: Task) -> tuple[FinetuneConfig, ClassSpec]:
    """The configuration with its classes, channels and statistics named, and the objective with all its arguments."""
    names = None if task.classes is None else list(task.classes)
    config = replace(
        config,
        model=with_channels(config.model, task.source.channels),
        data=replace(config.data, statistics=task.source.statistics),
        windows=replace(config.windows, classes=names),
        avg_pool=False,
        objective=_pooled(config),
    )
    arguments = {**config.objective.init_args, "n_channels": task.source.n_columns, **_from_labels(config, task)}
    return config, ClassSpec(config.objective.class_path, arguments)


def seen_by(source: Source, table: WindowTable) -> dict[str, Any]:
    """What the windows of a table were recorded with: ``rates_hz``, rising, and ``columns``, each way in which the
    columns of a window were filled: the names of its channels, null where a recording lacks one."""
    parts = np.unique(source.parts[table.item], axis=0)
    rates = np.unique(source.rows.rate_hz[first_rows(parts)])
    names = np.array([*source.channels, None], dtype=object)
    columns = {tuple(names[row]) for row in channels_of(source, parts).tolist()}
    return {"rates_hz": rates.tolist(), "columns": [list(of) for of in sorted(columns, key=str)]}


def _pooled(config: FinetuneConfig) -> ClassSpec:
    if not config.avg_pool:
        return config.objective
    if config.objective.init_args.get("pooling") == "cls":
        raise ConfigError("avg_pool averages, objective.pooling is cls; give one of them")
    return ClassSpec(config.objective.class_path, {**config.objective.init_args, "pooling": "average"})


def _from_labels(config: FinetuneConfig, task: Task) -> dict[str, object]:
    """Arguments that follow from the labels of the train side. Raises ``ConfigError`` if they are of another kind."""
    module, _, name = config.objective.class_path.rpartition(".")
    kind = getattr(import_module(module), name)
    labels, wanted = ("targets", Regression) if task.classes is None else ("classes", Classification)
    if not issubclass(kind, wanted):
        raise ConfigError(
            f"the labels are {labels}, but objective is {name}; set --objective {wanted.__module__}.{wanted.__name__}"
        )
    if task.classes is None:
        if config.train.sampling == "balanced":
            raise ConfigError("train.sampling balanced evens out classes, but the labels are targets; leave it out")
        return {"target_mean": float(task.train.label.mean()), "target_std": float(task.train.label.std()) or 1.0}
    counts = np.bincount(task.train.label, minlength=len(task.classes)).tolist()
    weights = inverse_frequency(counts) if config.train.class_weights == "inverse" else None
    return {"n_classes": len(task.classes), "class_weights": weights}


def _missing(train: WindowTable) -> tuple[str, ...]:
    there = set() if train.classes is None else set(train.label.tolist())
    return tuple(name for number, name in enumerate(train.classes or ()) if number not in there)


def _check_classes(config: FinetuneConfig, table: WindowTable) -> None:
    found = table.classes
    if config.n_classes is not None and config.n_classes != len(found or ()):
        raise ConfigError(
            f"n_classes is {config.n_classes}, but the labels have {len(found or ())} classes, "
            f"{', '.join(found or ())}; leave n_classes out, or choose with windows.classes"
        )
    if found is not None and len(found) < 2:
        raise ConfigError(f"the windows carry one class only, {found[0]}; there is nothing to tell apart")


def _check_length(config: FinetuneConfig, source: Source, table: WindowTable) -> None:
    """A window that the stream would cut short is no window: its label may belong to what was cut off."""
    rate = float(source.rows.rate_hz[first_rows(source.parts)[table.item]].max())
    samples, limit = round(rate * config.data.segment_duration), config.data.max_window_length
    if samples > limit:
        raise ConfigError(
            f"a window of {config.data.segment_duration:g} s at {rate:g} Hz has {samples} samples, but the model takes "
            f"{limit} (data.max_window_length); lower data.segment_duration to {limit / rate:g} or less"
        )
