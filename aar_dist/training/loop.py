"""The training loop: step, and now and then log, validate, save.

stream -> micro-batches -> Engine -> rows of metrics.jsonl
                                  -> validation, pictures
                                  -> checkpoints
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import torch

from aar_dist.base.hashing import hash_int, word
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.loader import SegmentStream
from aar_dist.training import saving
from aar_dist.training.config import RunConfig
from aar_dist.training.console import Console
from aar_dist.training.engine import Engine, StepResult
from aar_dist.training.health.monitor import Health
from aar_dist.training.metrics import Clock, Meter, MetricsFile, Row, memory_gb, read_rows
from aar_dist.training.patience import Patience
from aar_dist.training.phases import Phase
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import Ranks, from_main
from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.sizes.peak import matmul_tflops
from aar_dist.training.stopping.stopper import Stopper
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
    health: Health
    console: Console
    total_steps: int
    """Of the whole run, if none of its later phases ends early."""
    until: int
    """Step at which this phase ends."""
    since: int
    """Steps that had been taken when it began."""
    phases: tuple[Phase, ...]
    """Of the whole run."""
    phase: int | None
    """Number of this one, from 1; None where there is but one."""
    fastest: float
    """The largest factor of the learning rate."""
    val_every: int
    """Steps between two validations; the first step and the last of a phase have one as well."""
    save_every: int
    nodes: Nodes
    """The machines, and how busy they are."""
    pictures: int = 0
    """Segments drawn with their reconstruction at each validation."""
    patience: Patience = field(default_factory=lambda: Patience(None))

    def complete(self, progress: Progress) -> bool:
        """True if there is nothing left to train in this phase."""
        return progress.step >= self.until or self.patience.spent

    def validates(self, step: int) -> bool:
        """True if there is a validation at this step."""
        return self.val_stream is not None and (step == self.until or step % self.val_every == 0)

    def phase_of(self, step: int) -> Row:
        """What the row of a step says of the phase that it was taken in."""
        if self.phase is None:
            return {}
        return {"phase": self.phase if step > self.since or self.phase == 1 else self.phase - 1}

    def record(self, row: Row) -> None:
        """Write a row; the tracker reads the file."""
        if self.file:
            self.file.write(row)


def train(job: Job, progress: Progress, stopper: Stopper) -> Progress:
    """Train to the end of the phase, or until asked to stop; returns where it stands then."""
    config = job.config.train
    micro, _ = config.micro_batches(job.ranks.world_size)
    batches = job.train_stream.batches(progress.position, config.batch_size, micro, job.engine.device)
    meter = Meter(job.train_stream.datasets)
    _catch_up(job, progress, stopper)
    peak = matmul_tflops(job.engine.device, job.engine.layout["precision"])
    clock = Clock(job.ranks.world_size, job.engine.objective, peak)
    while not stopper.reason and not job.complete(progress):
        stopper.begin_step()
        lr = job.config.optim.rate(progress.step + 1, d_embedding=job.engine.d_embedding)
        result = train_step(job, batches, progress.step + 1, lr, meter, clock, stopper)
        if result is None:
            _save(job, progress, None, stopper)
            break
        progress = progress.advance(config.batch_size, applied=result.applied)
        _log(job, progress, result, lr, meter, clock)
        job.health.stepped(progress, applied=result.applied)
        stopper.after_step()
        clock.pause(_now_and_then(job, progress, stopper))
    return progress


def _catch_up(job: Job, progress: Progress, stopper: Stopper) -> None:
    """The validation of the untrained model, or one that a stop had cut short: its row follows, and the checkpoint of
    that step learns of its loss, also if a kill came between the two."""
    if not job.validates(progress.step):
        return
    row = from_main(lambda: _validated(job, progress.step))
    if row is None:
        row = _validate(job, progress, stopper)
        if row and progress.step > job.since:
            job.patience.see(row["val/loss"])
    if row and progress.step:
        loss = row["val/loss"]
        from_main(lambda: saving.learn(job.directory, progress.step, loss, job.config.train.retention))


def _validated(job: Job, step: int) -> Row | None:
    """The row of the validation at this step."""
    rows = read_rows(job.directory.metrics)
    return next((row for row in rows if row["step"] == step and "val/loss" in row), None)


def _now_and_then(job: Job, progress: Progress, stopper: Stopper) -> float:
    """Validate and save where it is time to; returns the seconds it took. A run that stops saves, and leaves the
    validation to the one that goes on from there."""
    before = time.perf_counter()
    row: Row | None = None
    validates = job.validates(progress.step)
    saves = bool(stopper.reason) or progress.step == job.until or progress.step % job.save_every == 0
    if validates or saves:
        job.engine.average_statistics()
    if validates and not stopper.reason:
        row = _validate(job, progress, stopper)
    if row:
        job.patience.see(row["val/loss"])
    if saves or stopper.reason or job.patience.spent:
        _save(job, progress, row["val/loss"] if row else None, stopper)
    return time.perf_counter() - before


def _save(job: Job, progress: Progress, val_loss: float | None, stopper: Stopper) -> None:
    """A checkpoint of this step, if there is none yet and a step was made."""
    if not progress.step or from_main(lambda: job.directory.holds(progress.step)):
        return
    before = time.perf_counter()
    job.health.pulse.beat("saving", progress.step)
    retention = job.config.train.retention
    saving.save(job.engine, job.directory, job.ranks, progress, val_loss, retention, job.file)
    stopper.saved(time.perf_counter() - before)


def train_step(
    job: Job, batches: Iterator[SegmentBatch], step: int, lr: float, meter: Meter, clock: Clock, stopper: Stopper
) -> StepResult | None:
    """One optimizer step; None if all ranks agreed to stop within it, which leaves the weights as they were before.
    Dropout is addressed by (seed, step, micro-batch, rank): nothing is to be restored."""
    result = None
    for i in range(job.engine.accumulation):
        before = time.perf_counter()
        job.health.pulse.beat("waiting for data", step)
        batch = next(batches)
        clock.waited(time.perf_counter() - before)
        torch.manual_seed(hash_int(job.config.train.seed, DROPOUT, step, i, job.ranks.rank))
        job.health.pulse.beat("computing", step)
        metrics = job.engine.micro_step(batch)
        meter.add(metrics, batch.dataset)
        job.health.micro(batch, metrics, first=i == 0)
        clock.trained(batch)
        last = i == job.engine.accumulation - 1
        result = job.engine.step(lr, last=last)
        if not last and job.engine.divisible and stopper.within():
            return None
    assert result is not None, "the last micro-batch completes the step"
    return result


def _log(job: Job, progress: Progress, result: StepResult, lr: float, meter: Meter, clock: Clock) -> None:
    """A row for every step; throughput and memory now and then."""
    row: Row = {"step": progress.step, **meter.take(), "lr": lr * job.fastest, "grad_norm": result.grad_norm}
    row |= {"skipped_steps": progress.skipped, **job.phase_of(progress.step)}
    speaks = progress.step % job.config.train.log_every == 0 or progress.step in (1, job.until)
    if speaks:
        row |= clock.take() | {"memory_gb": memory_gb(job.engine.device)} | job.nodes.take()
    job.record(row | job.health.looked_at(row))
    if speaks:
        job.console.step(row)


def _validate(job: Job, progress: Progress, stopper: Stopper) -> Row | None:
    """The row of a validation, recorded; None if all ranks agreed to stop before its end."""
    assert job.val_stream is not None, "it was asked for"
    picture = job.directory.pictures / f"step_{progress.step:08d}.png"
    train, beat = job.config.train, partial(job.health.pulse.beat, "validating", progress.step)
    row = validate(job.engine, job.val_stream, train, job.ranks, picture, job.pictures, stopper, beat)
    if row is None:
        return None
    job.record({"step": progress.step, **row, **job.phase_of(progress.step)})
    job.console.validation({"step": progress.step, **row}, job.val_stream.datasets)
    return row
