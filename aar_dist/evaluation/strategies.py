"""The recipes that are compared: settings laid over the one they share, and what a fold would refuse of each.

flags, FinetuneConfig -> FinetuneConfig of each strategy, checked
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from aar_dist.base.errors import ConfigError
from aar_dist.base.remote import is_url
from aar_dist.evaluation.baselines import BASELINES
from aar_dist.evaluation.fold_plan import Candidate
from aar_dist.evaluation.nested.grid import grid, told
from aar_dist.evaluation.probes import PROBES, SUFFIX
from aar_dist.evaluation.transductive import Seen
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.store.registry import SCHEME
from aar_dist.stream.windows import WindowTable
from aar_dist.training.finetuning.config import FinetuneConfig
from aar_dist.training.finetuning.finetune import adapt, initial_objective
from aar_dist.training.finetuning.folds import SIDES, Folds
from aar_dist.training.finetuning.pretrained import check_architecture, load_config, source_of
from aar_dist.training.finetuning.split import select
from aar_dist.training.finetuning.task import open_task, resolved

WHERE, CHOICES, CHOOSE = "cross_validation.strategies", "cross_validation.choose", "choose"
SHARED = (
    "data.shards", "data.segment_duration", "data.random_seed", "windows", "split", "train.seed", "store.path", "out",
    "cross_validation",
)  # fmt: skip
"""What no strategy has to itself: all are tested on the same windows, with the same seeds, in one folder."""
OF_THE_HEAD = ("pooling", "head_dropout")
"""Arguments of an objective that leave its loss what it is."""


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
        if name in (f"{probe}{SUFFIX}" for probe in PROBES):
            raise ConfigError(f"{WHERE}: {name} is the name of a probe; choose another")
        made[name] = _recipe(argv, f"{WHERE}.{name}", settings, plain, config)
    return made


def candidates(argv: Sequence[str], plain: FinetuneConfig, config: FinetuneConfig) -> dict[str, list[Candidate]]:
    """What each strategy chooses from inside each fold; those that choose nothing are left out."""
    options = config.cross_validation
    made: dict[str, list[Candidate]] = {}
    for name, settings in options.strategies.items():
        settings = settings or {}
        own = CHOOSE in settings
        where, choose = (f"{WHERE}.{name}.{CHOOSE}", settings[CHOOSE]) if own else (CHOICES, options.choose)
        found = [
            Candidate(tried, _recipe(argv, where, {**settings, **tried}, plain, config))
            for tried in grid(choose or {}, where)
        ]
        for one in found:
            if _loss(one.config) != _loss(found[0].config):
                raise ConfigError(
                    f"{where}: {told(one.settings)} has another loss than {told(found[0].settings)}, and they are "
                    "compared by their validation losses; make strategies of them"
                )
        made |= {name: found} if found else {}
    return made


def _loss(config: FinetuneConfig) -> tuple[object, ...]:
    """What a validation loss is a loss of."""
    plain = {key: value for key, value in config.objective.init_args.items() if key not in OF_THE_HEAD}
    return config.objective.class_path, plain, config.train.class_weights


def _recipe(
    argv: Sequence[str], where: str, settings: Mapping[str, Any] | None, plain: FinetuneConfig, config: FinetuneConfig
) -> FinetuneConfig:
    """Settings laid over the recipe. Raises ``ConfigError`` for what all must share."""
    laid = {key: value for key, value in (settings or {}).items() if key != CHOOSE}
    try:
        laid_over = load_config([*argv, *_flags(laid)])
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    own = [key for key in SHARED if attrgetter(key)(laid_over) != attrgetter(key)(plain)]
    if own:
        raise ConfigError(f"{where} sets {own[0]}, but all share it to be comparable; leave it out")
    return replace(
        laid_over,
        init_from=_start(where, laid_over, plain, config),
        windows=config.windows,
        data=replace(laid_over.data, shards=config.data.shards),
        store=replace(laid_over.store, path=config.store.path),
    )


def _start(where: str, laid_over: FinetuneConfig, plain: FinetuneConfig, config: FinetuneConfig) -> str | None:
    if laid_over.init_from == plain.init_from:
        return config.init_from
    if str(laid_over.init_from).endswith("@latest"):
        raise ConfigError(
            f"{where}: {laid_over.init_from} may become another model on the way; give its version's number"
        )
    return placed(laid_over.init_from)


def placed(start: str | None) -> str | None:
    """A folder by its whole path: whoever trains, wherever it was started, finds the same one."""
    return start if not start or start.startswith(SCHEME) or is_url(start) else str(Path(start).resolve())


def _flags(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings, nested or dotted, as flags."""
    flags = []
    for key, value in settings.items():
        if isinstance(value, dict):
            flags += _flags(value, f"{prefix}{key}.")
        else:
            flags.append(f"--{prefix}{key}={value if isinstance(value, str) else json.dumps(value)}")
    return flags


def check(name: str, config: FinetuneConfig, folds: Folds, table: WindowTable, *, ranks: int) -> None:
    """What a fold would refuse, before any has begun.

    Args:
        table: The windows that all are tested on.
        ranks: Processes of a fold.
    """
    source = source_of(config)
    if source:
        check_architecture(config, source)
    config.train.micro_batches(ranks)
    for fold in folds.folds:
        train, validation, test = (list(getattr(fold, side)) for side in SIDES)
        split = replace(config.split, folds=None, fold=0, train=train, validation=validation, test=test)
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
    objective = initial_objective(settled, head, source)
    objective.backbone.check_duration(config.data.segment_duration)
    adapt(objective, settled, source)


def starts(
    config: FinetuneConfig, checkpoint: Checkpoint | None, recipes: Iterable[FinetuneConfig], *, probing: bool
) -> list[Checkpoint]:
    """The models that anything that is tested starts from.

    Args:
        config: What the recipes were laid over.
        checkpoint: What that starts from.
        recipes: All that are trained.
        probing: Whether the model of ``config`` is probed as well.
    """
    told: dict[str | None, FinetuneConfig] = {
        one.init_from: one for one in recipes if one.init_from and not one.from_scratch
    }
    told |= {config.init_from: config} if probing else {}
    found = [checkpoint if name == config.init_from else source_of(one) for name, one in told.items()]
    return [model for model in found if model]


def check_untaught(seen: Seen, folds: Folds) -> None:
    """Refuse a start that has learned labels of a test side, itself or one that it came from."""
    for number, fold in enumerate(folds.folds):
        if both := sorted(seen.taught.keys() & {*fold.test}):
            raise ConfigError(
                f"fold {number} tests {both[0]}, whose labels {seen.taught[both[0]]} has learned from; start from a "
                "model that saw none, or allow it (--allow_leaks)"
            )
