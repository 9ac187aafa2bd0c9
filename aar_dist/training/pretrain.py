"""Pretraining from end to end.

config -> streams, objective -> engine, restored -> train -> fp32 weights in the store -> finished
"""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import torch
import yaml

from aar_dist.base.config import arguments, dump, load
from aar_dist.base.errors import user_entry
from aar_dist.base.hashing import hash_int, word
from aar_dist.objectives.base import Objective
from aar_dist.store.checkpoint import Checkpoint, build_objective, load_weights
from aar_dist.store.registry import resolve
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import SegmentStream, has_split, open_stream
from aar_dist.training import checkpoints, metrics, publishing, saving, tracking
from aar_dist.training.config import SCHEMA, PretrainConfig, recipe
from aar_dist.training.console import Console
from aar_dist.training.engine import Engine, check_zero_options, lost_peer, process_group
from aar_dist.training.loop import Job, train
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import Ranks, from_main
from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.stopper import Stopper

WEIGHTS = word("weights")


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """The command: ``--config FILE`` and dotted overrides. See docs/training.md."""
    pretrain(load(SCHEMA, arguments() if argv is None else argv))


def pretrain(config: PretrainConfig) -> None:
    """Train, or go on training, until the run is finished or asked to stop."""
    ranks = Ranks.from_environment()
    config.train.micro_batches(ranks.world_size)
    directory = RunDirectory.of(config.out)
    said = directory.finished()
    if said:
        if ranks.main:
            print(f"{directory.root} is finished: {said['model']} in {said['store']}. A new run needs another --out")
        return
    objective = initial_objective(config, directory)
    with ExitStack() as stack:
        streams = [stack.enter_context(closing(stream)) for stream in open_streams(config.data, ranks)]
        objective.backbone.check_duration(max(stream.longest_s for stream in streams))
        device = stack.enter_context(process_group(ranks))
        check_zero_options(config.deepspeed)
        stack.enter_context(lost_peer(ranks, directory.root))
        stopper = stack.enter_context(Stopper())
        job, progress = compose(config, ranks, device, directory, objective, streams, stack)
        finish(job, train(job, progress, stopper))


def open_streams(data: DataConfig, ranks: Ranks) -> list[SegmentStream]:
    """The training stream, and the one of validation if there is anything to validate on."""
    first = open_stream(data, "train", ranks.rank, ranks.world_size)
    return [first, open_stream(data, "val", ranks.rank, ranks.world_size)] if has_split(data, "val") else [first]


def initial_objective(config: PretrainConfig, directory: RunDirectory) -> Objective:
    """The model before its first step: weights from train.seed, or from ``init_from``. A run that has checkpoints
    takes its weights from there, later."""
    torch.manual_seed(hash_int(config.train.seed, WEIGHTS))
    objective = build_objective(config.model, config.objective)
    if config.init_from and not checkpoints.complete(directory.checkpoints):
        source = resolve(config.init_from, config.store.path)
        load_weights(objective, source.weights(), str(source.path))
    return objective


def compose(
    config: PretrainConfig,
    ranks: Ranks,
    device: torch.device,
    directory: RunDirectory,
    objective: Objective,
    streams: Sequence[SegmentStream],
    stack: ExitStack,
) -> tuple[Job, Progress]:
    """Everything the loop needs, restored to where the run stands; ``stack`` closes it. A launch that is refused
    leaves the run directory as it was."""
    from_main(lambda: claim(directory, stack))
    progress = Progress.start(streams[0].identity, config.data, config.train.seed, recipe(config))
    found = saving.find(directory)
    if found.saved:
        saving.check_continues(found.saved, progress, objective, config, ranks, device)
    from_main(lambda: publishing.check_store(config, directory))
    directory.open_log(ranks)
    engine = Engine(objective, config.deepspeed, config.train, config.optim, ranks, device)
    if found.saved:
        progress = saving.restore(engine, found.saved)
    text = dump(SCHEMA, config)
    from_main(lambda: take_over(directory, text, found))
    progress = replace(progress, run_id=from_main(lambda: tracking.run_id(directory.root)))
    total_steps = config.train.total_steps(streams[0].n_segments, step=progress.step, position=progress.position)
    console = Console(ranks, total_steps)
    stack.callback(console.close)
    file, tracker = recorders(config, console, directory, progress, text, stack)
    job = Job(
        config=config,
        ranks=ranks,
        engine=engine,
        train_stream=streams[0],
        val_stream=streams[1] if len(streams) > 1 else None,
        directory=directory,
        file=file,
        tracker=tracker,
        console=console,
        total_steps=total_steps,
    )
    announce(job, progress, found)
    return job, progress


def claim(directory: RunDirectory, stack: ExitStack) -> None:
    """Take the run directory for this launch (rank 0)."""
    stack.enter_context(directory.lock())


def take_over(directory: RunDirectory, config: str, found: saving.Found) -> None:
    """Make the run directory this launch's, now that nothing can refuse it any more (rank 0)."""
    directory.prepare(config)
    checkpoints.disown(found.damaged)


def recorders(
    config: PretrainConfig, console: Console, directory: RunDirectory, progress: Progress, text: str, stack: ExitStack
) -> tuple[metrics.MetricsFile | None, tracking.Run]:
    """The metrics file, cut back to where the run stands, and its mirror; on rank 0."""
    if not console.main:
        return None, tracking.NoTracker()
    last = metrics.trim(directory.metrics, progress.step if progress.step else -1)
    file = stack.enter_context(closing(metrics.MetricsFile(directory.metrics)))
    settings: dict[str, Any] = yaml.safe_load(text)
    tracker = tracking.start(
        config.tracking, directory.root, progress.run_id, settings, warn=console.warn, last_step=last
    )
    return file, stack.enter_context(closing(tracker))


def announce(job: Job, progress: Progress, found: saving.Found) -> None:
    """Say what is about to happen."""
    for problem in found.damaged.values():
        job.console.warn(f"{problem}; going back to the checkpoint before it")
    n_parameters = sum(torch.Size(shape).numel() for shape in job.engine.parameters.values())
    where = f"goes on from step {progress.step}" if progress.step else "starts"
    job.console.say(
        f"{job.directory.root} {where}: {n_parameters:,} parameters, {job.total_steps} steps of "
        f"{job.config.train.batch_size} segments, {job.ranks.world_size} rank(s) on {job.engine.device.type}, ZeRO-"
        f"{job.config.deepspeed.zero_stage}, {job.engine.layout['precision']}; data sets "
        f"{', '.join(job.train_stream.datasets)}"
    )
    if short := job.train_stream.source.too_short:
        seconds = job.config.data.segment_duration
        job.console.warn(f"{short} recordings are shorter than a segment of {seconds:g} s and are not drawn from")
    if job.val_stream is None:
        job.console.warn("the shards hold no validation subjects with the chosen sensors: nothing will be validated")


def finish(job: Job, progress: Progress) -> None:
    """Publish the weights and set the marker; or say how to go on."""
    if progress.step < job.total_steps:
        job.console.say(f"stopped at step {progress.step} and saved; the same command goes on from there")
        return
    made = from_main(lambda: _publish(job, progress))
    job.console.say(
        f"finished {progress.step} steps: {made.reference} in {publishing.store_path(job.config, job.directory)}\n"
        f"  weights, card   {made.path}\n"
        f"  every number    {job.directory.metrics}\n"
        f"  pictures        {job.directory.pictures}\n"
        f"  W&B             {job.directory.root / 'wandb'}"
    )


def _publish(job: Job, progress: Progress) -> Checkpoint:
    weights = job.engine.consolidate(job.directory.checkpoints, checkpoints.name_of(progress.step))
    about = {"datasets": list(job.train_stream.datasets), "channels": list(job.train_stream.channels)}
    made = publishing.publish(job.config, job.directory, weights, progress, about)
    said = {"step": progress.step, "model": made.reference, "path": str(made.path)}
    job.directory.finish({**said, "store": str(publishing.store_path(job.config, job.directory))})
    return made
