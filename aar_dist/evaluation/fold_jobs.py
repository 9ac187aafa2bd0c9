"""One fold of one method as a job: carried out in whatever process is free, wherever that is.

    FoldJob (planned by fold_plan.py) -> carry_out -> Outcome, and in its folder

        metrics.json, y_*_fold_k.npy, predictions_fold_k.parquet; of the network a whole run directory, with
        validation_fold_k.parquet

A job that is done is not done again; one that was killed goes on from its last checkpoint, with the same results. While
another process holds its folder (its machine was given up, but lives) a job waits, and takes over or finds it done.
"""

import contextlib
import os
import shutil
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from aar_dist.base import storage
from aar_dist.base.children import run_bound
from aar_dist.base.config import dump
from aar_dist.base.errors import AarError, ConfigError, PassingError, one_line
from aar_dist.evaluation.arrays import window_arrays
from aar_dist.evaluation.in_folds import baseline_in_fold, probe_in_fold
from aar_dist.evaluation.nested import choice, grid
from aar_dist.evaluation.probes import SUFFIX
from aar_dist.stream.windows import open_windows
from aar_dist.training.finetuning import candidate
from aar_dist.training.finetuning.config import SCHEMA, FinetuneConfig
from aar_dist.training.finetuning.finetune import finetune
from aar_dist.training.finetuning.folds import read_folds
from aar_dist.training.finetuning.predictions import METRICS, VALIDATION, file_of, write, write_windows
from aar_dist.training.finetuning.task import open_task
from aar_dist.training.finetuning.trained import CHOICE, TRAINED
from aar_dist.training.ranks import free_port
from aar_dist.training.run_directory import RunDirectory

TIMING, LOG, EMBEDDED = "seconds.json", "said.txt", "embedded"
LOOK_EVERY_S = 1.0
HELD_PATIENCE_S = 600.0
"""Who holds a folder and writes nothing for so long hangs."""


@dataclass(frozen=True, kw_only=True)
class FoldJob:
    """One method, one seed, one fold, one share of the train side."""

    method: str
    kind: Literal["network", "baseline", "probe"]
    seed: int
    fold: int | Literal["all"]
    config: FinetuneConfig
    """Of this very run; ``config.out`` is its folder."""
    fraction: float = 1.0
    """Share of the train side's subjects that it learns from."""
    ranks: int = 1
    cores: int = 1
    """Of each rank."""
    n_kernels: int = 2000
    candidates: tuple["FoldJob", ...] = ()
    """What the validation chooses from; ``config`` is then the recipe below them."""
    settings: Mapping[str, Any] | None = None
    """Of a candidate: what it tries. It is trained, and not tested."""
    into: str = ""
    """Of a candidate: the folder of its fold."""

    @property
    def folder(self) -> Path:
        """Where its results are."""
        return Path(self.config.out)

    @property
    def log(self) -> Path:
        """Where it writes what it has to say: beside a folder that does not exist before the choice."""
        if self.candidates and not self.folder.exists():
            return self.candidates[0].folder.parent / LOG
        return self.folder / LOG

    @property
    def share(self) -> str:
        """Of the train side's subjects, to a person; empty for all."""
        return f"{100 * self.fraction:g} %" if self.fraction < 1 else ""

    @property
    def name(self) -> str:
        """What a person calls it."""
        side = "all subjects" if self.fold == "all" else f"fold {self.fold}"
        share = f"{self.share} of subjects, " if self.share else ""
        tried = f", {grid.told(self.settings)}" if self.settings is not None else ""
        return f"{self.method}, {share}seed {self.seed}, {side}{tried}"

    @property
    def done(self) -> bool:
        """True if there is nothing left to do."""
        if self.settings is not None:
            return (self.folder / TRAINED).exists() or (Path(self.into) / CHOICE).exists()
        if self.kind != "network":
            return (self.folder / METRICS).exists()
        return RunDirectory.of(self.config.out).finished() is not None


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: FoldJob
    failed: str | None = None
    """Why, in one line."""
    again: bool = False
    """True of a failure that another try may mend."""


def carry_out(job: FoldJob) -> Outcome:
    """Do what is left of a job."""
    # So many threads wherever it is: the same sums, whoever does it.
    os.environ["OMP_NUM_THREADS"] = str(job.cores)
    torch.set_num_threads(job.cores)
    try:
        if not job.done:
            _timed(job)
    except Exception as error:  # whatever it is, the other folds go on
        reason = one_line(error) if isinstance(error, AarError) else f"{type(error).__name__}: {one_line(error)}"
        _note(job, traceback.format_exc())
        if not job.done:
            return Outcome(job, reason, again=not isinstance(error, ConfigError))
    return Outcome(job) if job.done else Outcome(job, "was asked to stop")


def _timed(job: FoldJob) -> None:
    before, spent = time.monotonic(), 0.0
    if job.candidates:
        tried = [job] if (job.folder / CHOICE).exists() else job.candidates
        spent = sum(_seconds(of.folder) for of in tried)
        job = chosen(job)
        storage.write_json(job.folder / TIMING, {"seconds": spent})
    with storage.one_line_errors(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)
    wait_for_turn(job)
    if job.done:
        return
    if job.kind != "network":
        with RunDirectory.of(job.config.out).lock():
            if not job.done:  # by who held the folder a moment ago
                (_baseline if job.kind == "baseline" else _probe)(job)
    elif job.ranks > 1:
        _launch(job)
    else:
        with open(job.log, "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            (finetune if job.settings is None else candidate.train_candidate)(job.config)
    if job.done:
        storage.write_json(job.folder / TIMING, {"seconds": round(spent + time.monotonic() - before, 1)})
        tidy(job)


def _seconds(folder: Path) -> float:
    """What was done there took; of a choice, all that was tried."""
    file = folder / TIMING
    return float(storage.read_json(file)["seconds"]) if file.exists() else 0.0


def wait_for_turn(job: FoldJob) -> None:
    """Wait while another process works in the folder: it is as good as this one, and may be done soon.

    Raises:
        PassingError: it has written nothing for a long time.
    """
    directory = RunDirectory.of(job.config.out)
    seen, since = 0, time.monotonic()
    while not job.done and (holder := directory.held()):
        size = directory.metrics.stat().st_size if directory.metrics.exists() else 0
        if size != seen:
            seen, since = size, time.monotonic()
        if time.monotonic() - since > HELD_PATIENCE_S:
            raise PassingError(
                f"{job.folder} is in use by {holder}, which has written nothing for {HELD_PATIENCE_S / 60:g} minutes; "
                "end it"
            )
        time.sleep(LOOK_EVERY_S)


def chosen(job: FoldJob) -> FoldJob:
    """The job with the settings that the validation has chosen; its run is trained, and stands where the job's is."""
    best = choice.choose([of.settings or {} for of in job.candidates], [of.folder for of in job.candidates], job.folder)
    config = job.candidates[best].config
    return replace(job, candidates=(), config=replace(config, out=job.config.out))


def tidy(job: FoldJob) -> None:
    """Remove what only a resume needs, of a job that is done: the weights are in the store. Of a candidate they are
    needed until the choice."""
    if job.settings is None:
        shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)


def _baseline(job: FoldJob) -> None:
    config = job.config
    source, table = open_windows(config.data, config.windows)
    if config.data.normalize == "dataset":  # the same rows, scaled by those who train
        source = open_task(config).source
    made = baseline_in_fold(
        job.method,
        window_arrays(source, table, config.data),
        table,
        read_folds(str(config.split.folds)),
        int(job.fold),
        class_weight="balanced" if config.train.evens_classes else None,
        split=config.split,
        seed=job.seed,
        **({"n_kernels": job.n_kernels} if job.method == "minirocket" else {}),
    )
    write(made, job.folder, job.fold, {"method": job.method, "seed": job.seed})


def _probe(job: FoldJob) -> None:
    kept = Path(str(job.config.split.folds)).with_name(EMBEDDED)
    made = probe_in_fold(job.method.removesuffix(SUFFIX), job.config, kept)
    if len(made.validation.table):
        write_windows(made.validation, file_of(job.folder, VALIDATION, job.fold))
    write(made.test, job.folder, job.fold, {"method": job.method, "seed": job.seed, "validation": made.chosen})


def _launch(job: FoldJob) -> None:
    """Several ranks, by DeepSpeed's launcher on a port of their own."""
    settings = job.folder / "job.yaml"
    storage.write_text(settings, dump(SCHEMA, job.config))
    launcher = [Path(sys.executable).with_name("deepspeed"), *_devices(job.ranks), "--log_level", "warning"]
    kind = "finetune" if job.settings is None else "candidate"
    command = [
        *launcher,
        "--master_port",
        free_port(),
        "--module",
        f"aar_dist.training.finetuning.{kind}",
        "--config",
        settings,
    ]
    with open(job.log, "ab") as log:
        code = run_bound(command, log)
    if not job.done:
        raise AarError(f"the launch ended with exit code {code}; {job.log} says why")


def _devices(ranks: int) -> list[str]:
    """Ray has chosen this job's GPUs. The launcher takes those, but the first of the machine if it is told a number."""
    return [] if os.environ.get("CUDA_VISIBLE_DEVICES") else ["--num_accelerators", str(ranks)]


def _note(job: FoldJob, text: str) -> None:
    with contextlib.suppress(OSError):
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "a") as log:
            log.write(text)
