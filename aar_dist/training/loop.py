"""The training loop: step, and now and then log, validate, save.

stream -> micro-batches -> Engine -> rows of metrics.jsonl
                                  -> validation, pictures
                                  -> checkpoints
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from aar_dist.base.errors import ConfigError
from aar_dist.base.hashing import hash_int, word
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.loader import SegmentStream
from aar_dist.training import saving
from aar_dist.training.config import RunConfig
from aar_dist.training.console import Console
from aar_dist.training.engine import Engine, StepResult
from aar_dist.training.metrics import Clock, Meter, MetricsFile, Row, memory_gb
from aar_dist.training.patience import Patience
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import Ranks
from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.stopper import Stopper
from aar_dist.training.tracking import Run
from aar_dist.training.tracking.nodes import Nodes
from aar_dist.training.validation import validate

DROPOUT = word("dropout")


@dataclass(frozen=True)
class Job:
    """What a run is made of."""

    config: RunConfig
    ranks: Ranks
    engine: Engine
    train_stream: SegmentStream
    val_stream: SegmentStream | None
    """None where the shards hold no validation subjects."""
    directory: RunDirectory
    file: MetricsFile | None
    """On rank 0."""
    tracker: Run
    console: Console
    total_steps: int
    val_every: int
    """Steps between two validations; the first and the last step have one as well."""
    save_every: int
    nodes: Nodes
    """The machines, and how busy they are."""
    pictures: int = 0
    """Segments drawn with their reconstruction at each validation."""
    patience: Patience = field(default_factory=lambda: Patience(None))

    def complete(self, progress: Progress) -> bool:
        """True if there is nothing left to train."""
        return progress.step >= self.total_steps or self.patience.spent

    def record(self, row: Row) -> None:
        """Write a row; the tracker reads the file."""
        if self.file:
            self.file.write(row)


def train(job: Job, progress: Progress, stopper: Stopper) -> Progress:
    """Train to the end, or until asked to stop; returns where it stands then."""
    config = job.config.train
    micro, _ = config.micro_batches(job.ranks.world_size)
    batches = job.train_stream.batches(progress.position, config.batch_size, micro, job.engine.device)
    clock = Clock(job.ranks.world_size)
    meter = Meter(job.train_stream.datasets)
    if progress.step == 0:
        _validate(job, progress)
    stopping, in_a_row = False, 0
    while not stopping and not job.complete(progress):
        lr = job.config.optim.rate(progress.step + 1, d_embedding=job.engine.d_embedding)
        result = train_step(job, batches, progress.step + 1, lr, meter, clock)
        progress = progress.advance(config.batch_size, applied=result.applied)
        in_a_row = 0 if result.applied else in_a_row + 1
        _log(job, progress, result, lr, meter, clock)
        _give_up_after(in_a_row, job.config)
        stopping = stopper.agreed()
        clock.pause(_now_and_then(job, progress, stopping=stopping))
    return progress


def _now_and_then(job: Job, progress: Progress, *, stopping: bool) -> float:
    """Validate and save where it is time to; returns the seconds it took."""
    before = time.perf_counter()
    last = progress.step == job.total_steps
    val_loss = None
    validates = last or progress.step % job.val_every == 0
    saves = last or stopping or progress.step % job.save_every == 0
    if validates or saves:
        job.engine.average_statistics()
    if validates:
        val_loss = _validate(job, progress).get("val/loss")
    if validates and job.val_stream:
        job.patience.see(val_loss)
    if saves or job.patience.spent:
        keep_last = job.config.train.keep_last
        saving.save(job.engine, job.directory, job.ranks, progress, val_loss, keep_last, job.file)
    return time.perf_counter() - before


def train_step(
    job: Job, batches: Iterator[SegmentBatch], step: int, lr: float, meter: Meter, clock: Clock
) -> StepResult:
    """One optimizer step. Dropout is addressed by (seed, step, micro-batch, rank): nothing is to be restored."""
    result = None
    for i in range(job.engine.accumulation):
        before = time.perf_counter()
        batch = next(batches)
        clock.waited(time.perf_counter() - before)
        torch.manual_seed(hash_int(job.config.train.seed, DROPOUT, step, i, job.ranks.rank))
        meter.add(job.engine.micro_step(batch), batch.dataset)
        clock.trained(batch)
        result = job.engine.step(lr, last=i == job.engine.accumulation - 1)
    assert result is not None, "the last micro-batch completes the step"
    return result


def _log(job: Job, progress: Progress, result: StepResult, lr: float, meter: Meter, clock: Clock) -> None:
    """A row for every step; throughput and memory now and then."""
    row: Row = {"step": progress.step, **meter.take(), "lr": lr, "grad_norm": result.grad_norm}
    row["skipped_steps"] = progress.skipped
    speaks = progress.step % job.config.train.log_every == 0 or progress.step in (1, job.total_steps)
    if speaks:
        row |= clock.take() | {"memory_gb": memory_gb(job.engine.device)} | job.nodes.take()
    job.record(row)
    if speaks:
        job.console.step(row)
    if not result.applied:
        job.console.warn(f"step {progress.step}: gradients are not finite; the step was left out")


def _give_up_after(in_a_row: int, config: RunConfig) -> None:
    if in_a_row >= config.train.max_skipped_steps:
        raise ConfigError(
            f"{in_a_row} steps in a row had gradients that are not finite; {config.optim.slower}, set "
            "deepspeed.gradient_clipping, or look for damaged values in the shards"
        )


def _validate(job: Job, progress: Progress) -> Row:
    if job.val_stream is None:
        return {}
    picture = job.directory.pictures / f"step_{progress.step:08d}.png"
    row = validate(job.engine, job.val_stream, job.config.train, job.ranks, picture, job.pictures)
    job.record({"step": progress.step, **row})
    job.console.validation({"step": progress.step, **row}, job.val_stream.datasets)
    return row
