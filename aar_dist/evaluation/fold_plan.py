"""Which jobs there are: methods x seeds x shares of the train side x folds, and the candidates that some choose from.

FinetuneConfig of each strategy, baselines -> FoldJob …, each with a folder and a configuration of its own
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from aar_dist.evaluation.baselines import DRAWS
from aar_dist.evaluation.fold_jobs import FoldJob, Outcome
from aar_dist.evaluation.nested.grid import Settings, told
from aar_dist.evaluation.probes import RANDOM, SUFFIX
from aar_dist.training.finetuning.config import CrossValidationConfig, FinetuneConfig

RUNS, CANDIDATES = "runs", "candidates"


@dataclass(frozen=True)
class Candidate:
    """One combination of settings that a strategy may choose."""

    settings: Settings
    config: FinetuneConfig


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What all jobs of a study share."""

    out: Path
    n_folds: int
    folds: Path
    """folds.json."""
    options: CrossValidationConfig


def network_jobs(
    strategies: Mapping[str, FinetuneConfig], choices: Mapping[str, Sequence[Candidate]], frame: Frame
) -> list[FoldJob]:
    """Every fold of every strategy with every seed and every share."""
    return [
        network_job(name, config, frame, fold, seed, fraction, choices.get(name, ()))
        for name, config in strategies.items()
        for fraction in frame.options.fractions
        for seed in frame.options.seeds
        for fold in range(frame.n_folds)
    ]


def network_job(
    name: str,
    config: FinetuneConfig,
    frame: Frame,
    fold: int,
    seed: int,
    fraction: float = 1.0,
    choices: Sequence[Candidate] = (),
) -> FoldJob:
    """One fold of a strategy."""
    key = (name, seed, fraction, fold)
    where = folder_of(frame.out, *key)
    more: dict[str, Any] = {"ranks": frame.options.ranks, "cores": frame.options.cores}
    job = FoldJob(
        method=name,
        kind="network",
        seed=seed,
        fold=fold,
        fraction=fraction,
        config=of_run(config, frame, *key, out=where),
        **more,
    )
    candidates = tuple(
        replace(
            job,
            config=of_run(
                one.config, frame, *key, out=folder_of(frame.out, *key, CANDIDATES) / str(number), tried=one.settings
            ),
            settings=one.settings,
            into=str(where),
        )
        for number, one in enumerate(choices)
    )
    return replace(job, candidates=candidates)


def of_run(
    config: FinetuneConfig,
    frame: Frame,
    name: str,
    seed: int,
    fraction: float,
    fold: int,
    *,
    out: Path,
    tried: Settings | None = None,
) -> FinetuneConfig:
    """The configuration of one run. Its model's name tells which it is, so that versions do not depend on who was
    first."""
    share = f".share{100 * fraction:g}" if fraction < 1 else ""
    labels = [name, f"seed {seed}", f"fold {fold}", f"{100 * fraction:g} % of subjects"]
    shown = [*labels[: 3 if fraction == 1 else 4], *([told(tried)] if tried else [])]
    tracking = config.tracking
    return replace(
        config,
        out=str(out),
        split=replace(config.split, folds=str(frame.folds), fold=fold, train_share=fraction),
        data=replace(config.data, random_seed=seed),
        train=replace(config.train, seed=seed),
        store=replace(config.store, name=f"{config.store.name}.{name}.seed{seed}.fold{fold}{share}"),
        tracking=replace(
            tracking,
            name=" ".join(shown),
            group=tracking.group or frame.out.name,
            tags=[*tracking.tags, *labels, *(["candidate"] if tried else [])],
        ),
        cross_validation=CrossValidationConfig(),
    )


def baseline_jobs(names: Sequence[str], config: FinetuneConfig, frame: Frame) -> list[FoldJob]:
    """Every fold of every baseline with every share, and each seed if it draws anything."""
    return [
        _closed_form("baseline", name, config, frame, fold, seed, fraction)
        for name in names
        for fraction in frame.options.fractions
        for seed in (frame.options.seeds if name in DRAWS else frame.options.seeds[:1])
        for fold in range(frame.n_folds)
    ]


def probe_jobs(names: Sequence[str], config: FinetuneConfig, frame: Frame) -> list[FoldJob]:
    """Every fold of every probe of the stored model with every share; with each seed where the backbone is random."""
    return [
        _closed_form(
            "probe",
            f"{name}{SUFFIX}",
            replace(config, train=replace(config.train, seed=seed), from_scratch=name == RANDOM),
            frame,
            fold,
            seed,
            fraction,
        )
        for name in names
        for fraction in frame.options.fractions
        for seed in (frame.options.seeds if name == RANDOM else frame.options.seeds[:1])
        for fold in range(frame.n_folds)
    ]


def _closed_form(
    kind: Literal["baseline", "probe"],
    method: str,
    config: FinetuneConfig,
    frame: Frame,
    fold: int,
    seed: int,
    fraction: float,
) -> FoldJob:
    """One fold of a method that is fitted in one go."""
    config = replace(
        config,
        out=str(folder_of(frame.out, method, seed, fraction, fold)),
        split=replace(config.split, folds=str(frame.folds), fold=fold, train_share=fraction),
    )
    key: dict[str, Any] = {"method": method, "kind": kind, "seed": seed, "fold": fold, "fraction": fraction}
    return FoldJob(**key, config=config, cores=frame.options.cores, n_kernels=frame.options.n_kernels)


def folder_of(out: Path, method: str, seed: int, fraction: float, fold: int | str, kind: str = RUNS) -> Path:
    """Where one fold of a method is."""
    share = [f"share_{100 * fraction:g}"] if fraction < 1 else []
    return Path(out, kind, method, f"seed_{seed}", *share, f"fold_{fold}")


def in_order(jobs: Iterable[FoldJob]) -> list[FoldJob]:
    """The long ones first, so that no worker is left with one at the end: networks by what they learn from and how
    often, then the methods that draw, then the rest."""

    def length(job: FoldJob) -> tuple[int, float]:
        network = job.kind == "network"
        return (2 if network else job.method in DRAWS), job.fraction * (job.config.train.epochs if network else 1)

    return sorted(jobs, key=length, reverse=True)


class Left:
    """What is left to do of some jobs: where candidates are still to be trained these, and their fold after them."""

    def __init__(self, jobs: Sequence[FoldJob]) -> None:
        left = [job for job in jobs if not job.done]
        self.n_done = len(jobs) - len(left)
        self._open = {job.folder: {one.name for one in job.candidates if not one.done} for job in left}
        self._folds = {job.folder: job for job in left}
        ready = [job for job in left if not self._open[job.folder]]
        tried = [one for job in left for one in job.candidates if one.name in self._open[job.folder]]
        self.now = in_order([*ready, *tried])
        """What can begin at once."""
        self.n_left = len(left) + len(tried)

    def after(self, outcome: Outcome) -> list[FoldJob]:
        """The fold whose last candidate has been trained. Asked of the outcomes, since a disk that machines share may
        show a file of another one half a minute late."""
        waits = self._open.get(Path(outcome.job.into), set()) if outcome.job.into else set()
        if outcome.failed or outcome.job.name not in waits:
            return []
        waits.remove(outcome.job.name)
        return [] if waits else [self._folds[Path(outcome.job.into)]]
