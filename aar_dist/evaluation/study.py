"""What a cross-validation is going to be: checked as a whole before anything of it is written.

FinetuneConfig -> windows, classes with enough data -> folds by subject, audited -> Study
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from aar_dist.base import storage
from aar_dist.base.config import dump
from aar_dist.base.errors import ConfigError
from aar_dist.base.remote import is_url
from aar_dist.evaluation import probes
from aar_dist.evaluation.audit_kept import Kept, audited_shards, with_pretraining
from aar_dist.evaluation.baselines import chosen
from aar_dist.evaluation.fold_jobs import FoldJob
from aar_dist.evaluation.fold_plan import Candidate, Frame, baseline_jobs, network_jobs, probe_jobs
from aar_dist.evaluation.folds import carried_classes, folds_of, require_classes, usable_classes
from aar_dist.evaluation.grouping import groups_of
from aar_dist.evaluation.same_study import check_same
from aar_dist.evaluation.strategies import candidates, check, check_untaught, named, placed, recipes, starts
from aar_dist.shards.format import read_info, read_manifest
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.stream.source import Source
from aar_dist.stream.windows import WindowConfig, WindowTable, open_windows
from aar_dist.training.finetuning.config import SCHEMA, CrossValidationConfig, FinetuneConfig
from aar_dist.training.finetuning.folds import Folds, keep_folds, read_folds
from aar_dist.training.finetuning.pretrained import load_config, pinned, source_of

CONFIG, FOLDS = "config.yaml", "folds.json"


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
    choices: Mapping[str, Sequence[Candidate]]
    """What some strategies choose from inside each fold."""
    baselines: tuple[str, ...]
    probes: tuple[str, ...]
    left_out: tuple[str, ...]
    """Classes with too little data."""
    lacking: tuple[str, ...]
    """A line for each class that a train side lacks, where that is allowed."""
    audit: Kept
    """What its recordings share."""

    @property
    def out(self) -> Path:
        """Its folder."""
        return Path(self.config.out).resolve()

    @property
    def options(self) -> CrossValidationConfig:
        """What to do with the recipe."""
        return self.config.cross_validation

    @property
    def frame(self) -> Frame:
        """What all its jobs share."""
        return Frame(out=self.out, n_folds=len(self.folds), folds=self.out / FOLDS, options=self.options)

    def jobs(self) -> list[FoldJob]:
        """Every fold of every method that is tested."""
        return [
            *network_jobs(self.strategies, self.choices, self.frame),
            *probe_jobs(self.probes, self.config, self.frame),
            *baseline_jobs(self.baselines, self.config, self.frame),
        ]

    def write(self) -> None:
        """Configuration and folds; refuse a folder that holds another study."""
        file = self.out / CONFIG
        if file.exists():
            check_same(file, self.config)
        keep_folds(self.out / FOLDS, self.folds)
        self.audit.write(self.out)
        storage.write_text(file, dump(SCHEMA, self.config))

    def pretrained_on(self) -> dict[str, bool | None]:
        """Subject -> whether pretraining saw its recordings, without labels; None where that is not known."""
        assert self.audit.seen, "told by open_study"
        return self.audit.seen.of

    def simulated(self) -> list[str]:
        """Data sets that no animal was recorded for."""
        told = {row["dataset"] for row in _rows(self.source) if row["location"] == "simulated"}
        return sorted(told & set(self.table.dataset.tolist()))


def open_study(argv: Sequence[str]) -> Study:
    """Read, split and check everything. Nothing is written.

    Raises:
        ConfigError: anything that a fold would refuse as well; a leak; a train side without a class.
    """
    plain = load_config(argv)
    if not plain.out:
        raise ConfigError("out is missing: name the folder of the folds with --out DIR")
    if plain.split.fold or plain.split.train or plain.split.validation or plain.split.test:
        raise ConfigError("split.fold and lists of subjects are for launch/finetune.py; give split.folds, or n_folds")
    if plain.split.train_share < 1:
        raise ConfigError("split.train_share is for launch/finetune.py; give cross_validation.fractions")
    checkpoint = source_of(plain)
    config = named(_placed(pinned(plain, checkpoint)))
    options = config.cross_validation
    config, source, table, left_out = _windows(config)
    allowed: dict[str, Any] = {"allow_leaks": options.allow_leaks, "namesakes": options.namesakes}
    folds, audit = audited_shards(source, _folds(config, source, table), Path(config.out), **allowed)
    lacking = require_classes(folds, allow_missing=config.train.allow_missing_classes)
    probing = probes.chosen(options.probes, pretrained=checkpoint is not None)
    made, choices = recipes(argv, plain, config), candidates(argv, plain, config)
    tried = {name: [one.config for one in choices.get(name, ())] or [recipe] for name, recipe in made.items()}
    models = starts(config, checkpoint, chain(*tried.values()), probing=bool(probing))
    subjects = np.unique(table.subject).tolist()
    audit = with_pretraining(audit, (models, config.store.path), source, subjects, Path(config.out))
    if audit.seen and not options.allow_leaks:
        check_untaught(audit.seen, folds)
    for name, configs in tried.items():
        for each in configs:
            check(name, each, folds, table, ranks=options.ranks)
    return Study(
        config=config,
        checkpoint=checkpoint,
        source=source,
        table=table,
        folds=folds,
        strategies=made,
        choices=choices,
        probes=probing,
        baselines=chosen(options.baselines, targets=table.classes is None),
        left_out=left_out,
        lacking=tuple(lacking),
        audit=audit,
    )


def _windows(config: FinetuneConfig) -> tuple[FinetuneConfig, Source, WindowTable, tuple[str, ...]]:
    """The configuration with its classes named, the windows of these, and the classes with too little data."""
    source, table = open_windows(config.data, config.windows)
    _check_subjects(table)
    if table.classes is None or config.windows.classes is not None:
        return config, source, table, ()
    options = config.cross_validation
    names = usable_classes(table, min_windows=options.min_windows, min_subjects=options.min_subjects)
    config = replace(config, windows=replace(config.windows, classes=names))
    return config, *open_windows(config.data, config.windows), tuple(c for c in table.classes if c not in names)


def _check_subjects(table: WindowTable) -> None:
    subjects = np.unique(table.subject).tolist()
    if len(subjects) < 2:
        raise ConfigError(
            f"one subject only ({subjects[0]}): nobody to test on; label more subjects, or train on all there are with "
            "launch/finetune.py --fold all"
        )


def _placed(config: FinetuneConfig) -> FinetuneConfig:
    """All folds publish into one store; whoever trains them, wherever it was started, finds the same places."""
    shards = [name if is_url(name) else str(Path(name).resolve()) for name in config.data.shards]
    store = config.store.path or str(Path(config.out) / "store")
    store = store if is_url(store) else str(Path(store).resolve())
    data, where = replace(config.data, shards=shards), replace(config.store, path=store)
    return replace(config, data=data, store=where, init_from=placed(config.init_from))


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
        folds = replace(folds, classes=table.classes, labels=_labels(config.windows))
        return replace(folds, shards=source.identity, carried=carried_classes(table))
    options = config.cross_validation
    made = folds_of(
        table,
        options.n_folds,
        shards=source.identity,
        seed=options.fold_seed,
        validation_share=config.split.validation_share,
        groups=groups_of(source, np.unique(table.subject).tolist(), options.group),
        one_each=options.group == "name",
        repeats=options.repeats,
    )
    return replace(made, labels=_labels(config.windows))


def _labels(windows: WindowConfig) -> dict[str, Any]:
    """What of the windows gives the classes their names, where that is not the recordings."""
    return {"map": windows.map, "unlisted": windows.unlisted} if windows.map else {}


def _rows(source: Source) -> list[dict[str, Any]]:
    columns = ["dataset", "subject", "split", "location"]
    tables = [read_manifest(folder, read_info(folder), columns, source.cache) for folder in source.folders]
    return [row for table in tables for row in table.to_pylist()]


def settings_of(study: Study) -> dict[str, Any]:
    """What results.json says of the windows."""
    windows = asdict(study.config.windows)
    told = {"segment_duration": study.config.data.segment_duration, **{k: windows[k] for k in ("hop_s", "min_share")}}
    return told | _labels(study.config.windows)
