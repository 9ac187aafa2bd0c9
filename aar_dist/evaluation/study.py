"""What a cross-validation is going to be: checked as a whole before anything of it is written.

FinetuneConfig -> windows, classes with enough data -> folds by subject, audited -> Study
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from aar_dist.base import storage
from aar_dist.base.config import dump
from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.audit import audited
from aar_dist.evaluation.baselines import available, baseline
from aar_dist.evaluation.fold_jobs import FoldJob, baseline_jobs, network_jobs
from aar_dist.evaluation.folds import carried_classes, folds_of, require_classes, usable_classes
from aar_dist.evaluation.tracks import tracks_of_shards
from aar_dist.shards.format import read_info, read_manifest
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.stream.source import Source
from aar_dist.stream.windows import WindowTable, open_windows
from aar_dist.training.finetune_config import SCHEMA, CrossValidationConfig, FinetuneConfig
from aar_dist.training.folds import Folds, keep_folds, read_folds
from aar_dist.training.pretrained import check_architecture, load_config, pinned, source_of
from aar_dist.training.split import SplitConfig
from aar_dist.training.task import open_task

CONFIG, FOLDS = "config.yaml", "folds.json"
MAY_CHANGE = ("out", "tracking", "store.path")
CROSS_VALIDATION_MAY_CHANGE = ("seeds", "baselines", "final", "workers", "ranks", "ray_address", "retries")
"""More seeds and methods may join, and others may do the work; what is done already stays."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """All that is going to be trained and compared."""

    config: FinetuneConfig
    """With its classes named and its start pinned to a version."""
    checkpoint: Checkpoint | None
    """What the folds start from."""
    source: Source
    table: WindowTable
    folds: Folds
    strategies: Mapping[str, FinetuneConfig]
    left_out: tuple[str, ...]
    """Classes with too little data."""
    lacking: tuple[str, ...]
    """A line for each class that a train side lacks, where that is allowed."""

    @property
    def out(self) -> Path:
        """Its folder."""
        return Path(self.config.out).resolve()

    @property
    def options(self) -> CrossValidationConfig:
        """What to do with the recipe."""
        return self.config.cross_validation

    def jobs(self) -> list[FoldJob]:
        """Every fold of every method; the long ones first, so that no worker is left with one at the end."""
        where = (self.out, len(self.folds), self.out / FOLDS, self.options)
        return [
            *network_jobs(self.strategies, *where),
            *baseline_jobs(self._baselines(), self.config, *where),
        ]

    def _baselines(self) -> list[str]:
        asked = self.options.baselines
        if asked == ["auto"]:
            return available(targets=self.table.classes is None)
        return [name for name in asked if name != "none"]

    def write(self) -> None:
        """Configuration and folds; refuse a folder that holds another study."""
        file = self.out / CONFIG
        if file.exists():
            _check_same(file, self.config)
        keep_folds(self.out / FOLDS, self.folds)
        storage.write_text(file, dump(SCHEMA, self.config))

    def pretrained_on(self) -> dict[str, bool | None]:
        """Subject -> whether pretraining saw its recordings, without labels; None where that is not known."""
        subjects = np.unique(self.table.subject).tolist()
        if self.checkpoint is None:
            return dict.fromkeys(subjects, False)
        if self.checkpoint.manifest.get("shards") != self.source.identity:
            return dict.fromkeys(subjects, None)
        split = {f"{row['dataset']}/{row['subject']}": row["split"] for row in _rows(self.source.folders)}
        return {subject: split[subject] == "train" for subject in subjects}

    def simulated(self) -> list[str]:
        """Data sets that no animal was recorded for."""
        told = {row["dataset"] for row in _rows(self.source.folders) if row["location"] == "simulated"}
        return sorted(told & set(self.table.dataset.tolist()))


def open_study(argv: Sequence[str]) -> Study:
    """Read, split and check everything. Nothing is written.

    Raises:
        ConfigError: anything that a fold would refuse as well; a leak; a train side without a class.
    """
    config = load_config(argv)
    if not config.out:
        raise ConfigError("out is missing: name the folder of the folds with --out DIR")
    checkpoint = source_of(config)
    config = _store_named(pinned(config, checkpoint))
    source, table = open_windows(config.data, config.windows)
    everything = table.classes or ()
    if table.classes is not None and config.windows.classes is None:
        options = config.cross_validation
        names = usable_classes(table, min_windows=options.min_windows, min_subjects=options.min_subjects)
        config = replace(config, windows=replace(config.windows, classes=names))
        source, table = open_windows(config.data, config.windows)
    folds = _audited(config, source, _folds(config, source, table))
    lacking = require_classes(folds, allow_missing=config.train.allow_missing_classes)
    made = _strategies(argv, config)
    for name in config.cross_validation.baselines:
        if name not in ("auto", "none"):
            baseline(name)
    for strategy in made.values():
        _check(strategy, folds)
    return Study(
        config=config,
        checkpoint=checkpoint,
        source=source,
        table=table,
        folds=folds,
        strategies=made,
        left_out=tuple(name for name in everything if name not in (table.classes or ())),
        lacking=tuple(lacking),
    )


def _store_named(config: FinetuneConfig) -> FinetuneConfig:
    """All folds publish into one store."""
    path = config.store.path or str(Path(config.out) / "store")
    return replace(config, store=replace(config.store, path=path))


def _folds(config: FinetuneConfig, source: Source, table: WindowTable) -> Folds:
    """Those of ``split.folds``, of this folder, or new ones."""
    if config.split.folds:
        folds = read_folds(config.split.folds)
        if folds.shards:
            folds.check_shards(source.identity)
        there = set(table.subject.tolist())
        for number, fold in enumerate(folds.folds):
            for subject in fold.side_of():
                if subject not in there:
                    where = f"{config.split.folds}, fold {number}"
                    raise ConfigError(f"{where}: no labelled window of a subject {subject!r} in the shards")
        return replace(folds, classes=table.classes, shards=source.identity, carried=carried_classes(table))
    options = config.cross_validation
    return folds_of(
        table,
        options.n_folds,
        shards=source.identity,
        seed=options.fold_seed,
        validation_share=config.split.validation_share,
    )


def _audited(config: FinetuneConfig, source: Source, folds: Folds) -> Folds:
    subjects = {name for fold in folds.folds for name in fold.side_of()}
    tracks = [track for track in tracks_of_shards(source.folders) if track.subject in subjects]
    return audited(folds, tracks, allow_leaks=config.cross_validation.allow_leaks)


def _strategies(argv: Sequence[str], config: FinetuneConfig) -> dict[str, FinetuneConfig]:
    """The recipe of each strategy: its settings come after all others."""
    asked = config.cross_validation.strategies
    if not asked:
        asked = {"pretrained": {}, "scratch": {"from_scratch": True}} if config.init_from else {"scratch": {}}
    made = {}
    for name, settings in asked.items():
        try:
            laid_over = load_config([*argv, *_flags(settings)])
        except ConfigError as error:
            raise ConfigError(f"cross_validation.strategies.{name}: {error}") from None
        for key in ("shards", "segment_duration"):
            if getattr(laid_over.data, key) != getattr(config.data, key):
                raise ConfigError(
                    f"cross_validation.strategies.{name} sets data.{key}, but all must be tested on the same windows; "
                    "leave it out"
                )
        start = config.init_from if "init_from" not in settings else laid_over.init_from
        windows, store = config.windows, replace(laid_over.store, path=config.store.path)
        made[name] = replace(laid_over, init_from=start, windows=windows, store=store)
    return made


def _flags(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings, nested or dotted, as flags."""
    flags = []
    for key, value in settings.items():
        if isinstance(value, dict):
            flags += _flags(value, f"{prefix}{key}.")
        else:
            flags.append(f"--{prefix}{key}={value if isinstance(value, str) else json.dumps(value)}")
    return flags


def _check(config: FinetuneConfig, folds: Folds) -> None:
    """What a fold would refuse, before any has begun."""
    source = source_of(config)
    if source:
        check_architecture(config, source)
    for fold in folds.folds:
        split = SplitConfig(train=list(fold.train), validation=list(fold.validation), test=list(fold.test))
        open_task(replace(config, split=split))


def _check_same(file: Path, config: FinetuneConfig) -> None:
    """Raise ``ConfigError`` if a folder was made with other settings."""
    before, now = yaml.safe_load(file.read_text()), yaml.safe_load(dump(SCHEMA, config))
    for settings in (before, now):
        for key in MAY_CHANGE:
            section, _, name = key.partition(".")
            settings.get(section, {}).pop(name, None) if name else settings.pop(section, None)
        options = settings.get("cross_validation", {})
        for key in CROSS_VALIDATION_MAY_CHANGE:
            options.pop(key, None)
    # A strategy may join, none may change.
    kept = before["cross_validation"].pop("strategies", {}), now["cross_validation"].pop("strategies", {})
    changed = [f"cross_validation.strategies.{name}" for name, of in kept[0].items() if kept[1].get(name) != of]
    changed = changed or [key for key, value in _leaves(now) if dict(_leaves(before)).get(key, ...) != value]
    if changed:
        old, new = (dict(_leaves(s)).get(changed[0]) for s in (before, now))
        raise ConfigError(
            f"{file} was made with {changed[0]} {old}, now it is {new}; go on with the same settings, or choose "
            "another --out"
        )


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in settings.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(f"{prefix}{key}", value)]
    return found


def _rows(folders: Sequence[Path]) -> list[dict[str, Any]]:
    columns = ["dataset", "subject", "split", "location"]
    return [row for folder in folders for row in read_manifest(folder, read_info(folder), columns).to_pylist()]


def settings_of(study: Study) -> dict[str, Any]:
    """What results.json says of the windows."""
    windows = asdict(study.config.windows)
    return {"segment_duration": study.config.data.segment_duration, **{k: windows[k] for k in ("hop_s", "min_share")}}
