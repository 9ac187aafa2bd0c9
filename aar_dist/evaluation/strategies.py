"""The recipes that are compared: settings laid over the one they share, and what a fold would refuse of each.

flags, FinetuneConfig -> FinetuneConfig of each strategy, checked
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.baselines import BASELINES
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.stream.windows import WindowTable
from aar_dist.training.finetuning.config import FinetuneConfig
from aar_dist.training.finetuning.finetune import initial_objective
from aar_dist.training.finetuning.folds import Folds
from aar_dist.training.finetuning.pretrained import check_architecture, load_config, source_of
from aar_dist.training.finetuning.split import SplitConfig, select
from aar_dist.training.finetuning.task import open_task, resolved

WHERE = "cross_validation.strategies"
SHARED = (
    "data.shards", "data.segment_duration", "data.random_seed", "windows", "split", "train.seed", "store.path", "out",
    "cross_validation",
)  # fmt: skip
"""What no strategy has to itself: all are tested on the same windows, with the same seeds, in one folder."""


def named(config: FinetuneConfig) -> FinetuneConfig:
    """The configuration with its strategies by name, where it leaves them open."""
    options = config.cross_validation
    pair: dict[str, dict[str, Any]] = {"pretrained": {}, "scratch": {"from_scratch": True}}
    made = pair if config.init_from else {"scratch": {}}
    if options.strategies:
        made = {name: dict(settings or {}) for name, settings in options.strategies.items()}
    return replace(config, cross_validation=replace(options, strategies=dict(made)))


def recipes(argv: Sequence[str], plain: FinetuneConfig, config: FinetuneConfig) -> dict[str, FinetuneConfig]:
    """The recipe of each strategy: its settings come after all others.

    Args:
        argv: The flags.
        plain: What they say, as it stands.
        config: The same, with names, places and versions settled.
    """
    made = {}
    for name, settings in config.cross_validation.strategies.items():
        if name in BASELINES:
            raise ConfigError(f"{WHERE}: {name} is the name of a baseline; choose another")
        try:
            laid_over = load_config([*argv, *_flags(settings or {})])
        except ConfigError as error:
            raise ConfigError(f"{WHERE}.{name}: {error}") from None
        own = [key for key in SHARED if attrgetter(key)(laid_over) != attrgetter(key)(plain)]
        if own:
            raise ConfigError(f"{WHERE}.{name} sets {own[0]}, but all share it to be comparable; leave it out")
        made[name] = replace(
            laid_over,
            init_from=_start(name, laid_over, plain, config),
            windows=config.windows,
            data=replace(laid_over.data, shards=config.data.shards),
            store=replace(laid_over.store, path=config.store.path),
        )
    return made


def _start(name: str, laid_over: FinetuneConfig, plain: FinetuneConfig, config: FinetuneConfig) -> str | None:
    if laid_over.init_from == plain.init_from:
        return config.init_from
    if str(laid_over.init_from).endswith("@latest"):
        raise ConfigError(
            f"{WHERE}.{name}: {laid_over.init_from} may become another model on the way; give its version's number"
        )
    return laid_over.init_from


def _flags(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings, nested or dotted, as flags."""
    flags = []
    for key, value in settings.items():
        if isinstance(value, dict):
            flags += _flags(value, f"{prefix}{key}.")
        else:
            flags.append(f"--{prefix}{key}={value if isinstance(value, str) else json.dumps(value)}")
    return flags


def check(
    name: str, config: FinetuneConfig, folds: Folds, table: WindowTable, *, ranks: int, allow_leaks: bool
) -> None:
    """What a fold would refuse, before any has begun.

    Args:
        table: The windows that all are tested on.
        ranks: Processes of a fold.
        allow_leaks: Go on though the model to start from has learned the labels of a subject that is tested.
    """
    source = source_of(config)
    if source:
        check_architecture(config, source)
    if source and not (config.from_scratch or allow_leaks):
        _check_start(source, folds)
    config.train.micro_batches(ranks)
    for fold in folds.folds:
        split = SplitConfig(train=list(fold.train), validation=list(fold.validation), test=list(fold.test))
        task = open_task(replace(config, split=split))
        wanted = select(table, fold.test)
        if not all(
            np.array_equal(getattr(task.test, k), getattr(wanted, k)) for k in ("recording", "start_s", "label")
        ):
            raise ConfigError(
                f"{WHERE}.{name}: its test windows are not those of the others (sensors or kinds of its own); leave "
                "data as it is"
            )
    settled, head = resolved(config, task)
    initial_objective(settled, head, source)[0].backbone.check_duration(config.data.segment_duration)


def _check_start(source: Checkpoint, folds: Folds) -> None:
    """Refuse a start that has seen labels of the test side: a fine-tuned model names its subjects."""
    told = source.manifest.get("split") or {}
    taught = {subject for side in ("train", "validation") for subject in told.get(side, ())}
    for number, fold in enumerate(folds.folds):
        if both := sorted(taught & {*fold.test}):
            raise ConfigError(
                f"fold {number} tests {both[0]}, whose labels init_from {source.reference} has learned from; start "
                "from a model that saw none, or allow it (--allow_leaks)"
            )
