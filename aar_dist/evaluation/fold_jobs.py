"""One fold of one method as a job: planned here, carried out in whatever process is free.

    FinetuneConfig of each strategy, baselines -> FoldJob … -> carry_out -> Outcome, and in its folder

        metrics.json, y_*_fold_k.npy, predictions_fold_k.parquet; of the network a whole run directory, with
        validation_fold_k.parquet

A job that is done is not done again; one that was killed goes on from its last checkpoint, with the same results.
"""

import contextlib
import os
import shutil
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from aar_dist.base import storage
from aar_dist.base.children import run_bound
from aar_dist.base.config import dump
from aar_dist.base.errors import AarError, ConfigError, one_line
from aar_dist.evaluation.arrays import window_arrays
from aar_dist.evaluation.baselines import DRAWS
from aar_dist.evaluation.in_folds import baseline_in_fold
from aar_dist.stream.windows import open_windows
from aar_dist.training.finetuning.config import SCHEMA, CrossValidationConfig, FinetuneConfig
from aar_dist.training.finetuning.finetune import finetune
from aar_dist.training.finetuning.folds import read_folds
from aar_dist.training.finetuning.predictions import METRICS, write
from aar_dist.training.ranks import free_port
from aar_dist.training.run_directory import RunDirectory

RUNS, TIMING, LOG = "runs", "seconds.json", "said.txt"
PAUSE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class FoldJob:
    """One method, one seed, one fold."""

    method: str
    kind: Literal["network", "baseline"]
    seed: int
    fold: int | Literal["all"]
    config: FinetuneConfig
    """Of this very run; ``config.out`` is its folder."""
    ranks: int = 1
    n_kernels: int = 2000
    retries: int = 0
    fraction: float = 1.0
    """Share of the train side's subjects that it learns from."""

    @property
    def folder(self) -> Path:
        """Where its results are."""
        return Path(self.config.out)

    @property
    def name(self) -> str:
        """What a person calls it."""
        side = "all subjects" if self.fold == "all" else f"fold {self.fold}"
        return f"{self.method}, seed {self.seed}, {side}"

    @property
    def done(self) -> bool:
        """True if there is nothing left to do."""
        if self.kind == "baseline":
            return (self.folder / METRICS).exists()
        return RunDirectory.of(self.config.out).finished() is not None


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: FoldJob
    failed: str | None = None
    """Why, in one line."""


def network_jobs(
    strategies: Mapping[str, FinetuneConfig], out: Path, n_folds: int, folds: Path, options: CrossValidationConfig
) -> list[FoldJob]:
    """Every fold of every strategy with every seed."""
    return [
        network_job(name, config, out, fold, seed, folds, options)
        for name, config in strategies.items()
        for seed in options.seeds
        for fold in range(n_folds)
    ]


def network_job(
    name: str, config: FinetuneConfig, out: Path, fold: int, seed: int, folds: Path, options: CrossValidationConfig
) -> FoldJob:
    """One fold of a strategy. Its model's name tells which it is, so that versions do not depend on who was first."""
    config = replace(
        config,
        out=str(folder_of(out, name, seed, fold)),
        split=replace(config.split, folds=str(folds), fold=fold),
        data=replace(config.data, random_seed=seed),
        train=replace(config.train, seed=seed),
        store=replace(config.store, name=f"{config.store.name}.{name}.seed{seed}.fold{fold}"),
        tracking=replace(
            config.tracking, name=f"{name} seed {seed} fold {fold}", group=config.tracking.group or out.name
        ),
        cross_validation=CrossValidationConfig(),
    )
    more = {"ranks": options.ranks, "retries": options.retries}
    return FoldJob(method=name, kind="network", seed=seed, fold=fold, config=config, **more)


def baseline_jobs(
    names: Sequence[str], config: FinetuneConfig, out: Path, n_folds: int, folds: Path, options: CrossValidationConfig
) -> list[FoldJob]:
    """Every fold of every baseline, with each seed if it draws anything."""
    return [
        FoldJob(
            method=name,
            kind="baseline",
            seed=seed,
            fold=fold,
            config=replace(
                config,
                out=str(folder_of(out, name, seed, fold)),
                split=replace(config.split, folds=str(folds), fold=fold),
            ),
            n_kernels=options.n_kernels,
            retries=options.retries,
        )
        for name in names
        for seed in (options.seeds if name in DRAWS else options.seeds[:1])
        for fold in range(n_folds)
    ]


def folder_of(out: Path, method: str, seed: int, fold: int | str) -> Path:
    """Where one fold of a method is."""
    return out / RUNS / method / f"seed_{seed}" / f"fold_{fold}"


def carry_out(job: FoldJob) -> Outcome:
    """Do what is left of a job; a failure is tried again, unless it is the configuration's."""
    # One thread: the same sums, whoever does it; the folds share the cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    reason = ""
    for _ in range(1 + job.retries):
        if job.done:
            return Outcome(job)
        try:
            _timed(job)
            break
        except Exception as error:  # whatever it is, the other folds go on
            reason = one_line(error) if isinstance(error, AarError) else f"{type(error).__name__}: {one_line(error)}"
            _note(job, traceback.format_exc())
            if isinstance(error, ConfigError):
                break
            time.sleep(PAUSE_S)
    return Outcome(job) if job.done else Outcome(job, reason or "was asked to stop")


def _timed(job: FoldJob) -> None:
    before = time.monotonic()
    with storage.one_line_errors(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)
    if job.kind == "baseline":
        _baseline(job)
    elif job.ranks > 1:
        _launch(job)
    else:
        with open(job.folder / LOG, "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            finetune(job.config)
    if job.done:
        storage.write_json(job.folder / TIMING, {"seconds": round(time.monotonic() - before, 1)})
        tidy(job)


def tidy(job: FoldJob) -> None:
    """Remove what only a resume needs, of a job that is done: the weights are in the store."""
    shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)


def _baseline(job: FoldJob) -> None:
    config = job.config
    source, table = open_windows(config.data, config.windows)
    made = baseline_in_fold(
        job.method,
        window_arrays(source, table, config.data),
        table,
        read_folds(str(config.split.folds)),
        int(job.fold),
        class_weight="balanced" if config.train.class_weights == "inverse" else None,
        seed=job.seed,
        **({"n_kernels": job.n_kernels} if job.method == "minirocket" else {}),
    )
    write(made, job.folder, job.fold, {"method": job.method, "seed": job.seed})


def _launch(job: FoldJob) -> None:
    """Several ranks, by DeepSpeed's launcher on a port of their own."""
    settings = job.folder / "job.yaml"
    storage.write_text(settings, dump(SCHEMA, job.config))
    launcher = [Path(sys.executable).with_name("deepspeed"), *_devices(job.ranks), "--log_level", "warning"]
    command = [
        *launcher,
        "--master_port",
        free_port(),
        "--module",
        "aar_dist.training.finetuning.finetune",
        "--config",
        settings,
    ]
    with open(job.folder / LOG, "ab") as log:
        code = run_bound(command, log)
    if not job.done:
        raise AarError(f"the launch ended with exit code {code}; {job.folder / LOG} says why")


def _devices(ranks: int) -> list[str]:
    """Ray has chosen this job's GPUs. The launcher takes those, but the first of the machine if it is told a number."""
    return [] if os.environ.get("CUDA_VISIBLE_DEVICES") else ["--num_accelerators", str(ranks)]


def _note(job: FoldJob, text: str) -> None:
    with contextlib.suppress(OSError):
        job.folder.mkdir(parents=True, exist_ok=True)
        with open(job.folder / LOG, "a") as log:
            log.write(text)
