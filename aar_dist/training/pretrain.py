"""Pretraining from end to end.

config -> streams, objective -> engine, restored -> train -> fp32 weights in the store -> finished
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

import torch

from aar_dist.base.config import arguments, dump, load
from aar_dist.base.errors import user_entry
from aar_dist.base.hashing import hash_int
from aar_dist.base.interrupts import resumes
from aar_dist.models.channels import with_channels
from aar_dist.models.inflation import adapted, inflation_of
from aar_dist.objectives.base import Objective
from aar_dist.store.checkpoint import OWNER, Checkpoint, build_objective, load_weights, specs
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import SegmentStream, has_split, open_stream
from aar_dist.training import checkpoints, publishing
from aar_dist.training.cards import pretrained
from aar_dist.training.config import SCHEMA, PretrainConfig, recipe
from aar_dist.training.finetuning.pretrained import begun, opened
from aar_dist.training.loop import Job
from aar_dist.training.meeting.meeting import meets
from aar_dist.training.phases import Phase
from aar_dist.training.plan import Plan
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import Ranks, from_main
from aar_dist.training.run import WEIGHTS, carry_out, place_of, tells_finished
from aar_dist.training.run_directory import RunDirectory


@user_entry
@resumes
@meets
def main(argv: Sequence[str] | None = None) -> None:
    """The command: ``--config FILE`` and dotted overrides. See docs/training.md."""
    pretrain(load(SCHEMA, arguments() if argv is None else argv))


def pretrain(config: PretrainConfig) -> None:
    """Train, or go on training, until the run is finished or asked to stop."""
    ranks, directory = place_of(config)
    if tells_finished(directory, ranks):
        return
    config = begun(config)
    source = start_of(config, directory)
    with ExitStack() as stack:
        streams = [stack.enter_context(closing(stream)) for stream in open_streams(config.data, ranks)]
        channels = dict.fromkeys(name for stream in streams for name in stream.channels)
        config = replace(config, model=with_channels(config.model, tuple(channels), strict=True))
        objective = initial_objective(config, source)
        objective.backbone.check_duration(max(stream.longest_s for stream in streams))
        carry_out(plan(config, objective, streams), ranks, directory, finish)


def open_streams(data: DataConfig, ranks: Ranks) -> list[SegmentStream]:
    """The training stream, and the one of validation if there is anything to validate on."""
    first = open_stream(data, "train", ranks.rank, ranks.world_size)
    return [first, open_stream(data, "val", ranks.rank, ranks.world_size)] if has_split(data, "val") else [first]


def start_of(config: PretrainConfig, directory: RunDirectory) -> Checkpoint | None:
    """The stored model of ``init_from``; None without, and for a run that has checkpoints: it takes its weights from
    there. Raises ``CheckpointError`` if there is none, or if it is damaged."""
    if not config.init_from or checkpoints.complete(directory.checkpoints):
        return None
    return opened(config.init_from, config)


def initial_objective(config: PretrainConfig, source: Checkpoint | None) -> Objective:
    """The model before its first step: weights from train.seed, or those of a stored model."""
    torch.manual_seed(hash_int(config.train.seed, WEIGHTS))
    objective = build_objective(config.model, config.objective)
    if source:
        channels = inflation_of(specs(source.config())[0].init_args, config.model.init_args)
        weights = adapted(source.weights(), objective.backbone, channels, seed=config.train.seed, prefix=OWNER)
        load_weights(objective, weights, source.where)
    return objective


def plan(config: PretrainConfig, objective: Objective, streams: Sequence[SegmentStream]) -> Plan:
    """What is going to be done."""
    config = replace(config, data=replace(config.data, statistics=streams[0].source.statistics))
    return Plan(
        config=config,
        text=dump(SCHEMA, config),
        objective=objective,
        phases=(Phase(name="all layers", epochs=config.train.epochs),),
        train_stream=streams[0],
        val_stream=streams[1] if len(streams) > 1 else None,
        val_every=config.train.val_every,
        save_every=config.train.save_every,
        pictures=config.train.pictures,
        recipe=recipe(config),
        about=f"data sets {', '.join(streams[0].datasets)}",
        warnings=tuple(left_out(config.data, streams)),
    )


def left_out(data: DataConfig, streams: Sequence[SegmentStream]) -> Iterator[str]:
    """What of the shard sets the run does without."""
    source = streams[0].source
    if source.too_short:
        yield (
            f"{source.too_short} recordings are shorter than a segment of {data.segment_duration:g} s and are not "
            "drawn from"
        )
    for name in source.vanished:
        yield f"no recording of {name} is as long as a segment: it is not drawn from at all"
    if len(streams) == 1:
        yield "the shards hold no validation subjects with the chosen sensors: nothing will be validated"


def finish(job: Job, progress: Progress) -> None:
    """Publish the weights and set the marker."""
    made = from_main(lambda: _publish(job, progress))
    job.console.say(
        f"finished {progress.step} steps: {made.reference} in {publishing.store_path(job.config, job.directory)}\n"
        f"  weights, card   {made.where}\n"
        f"  every number    {job.directory.metrics}\n"
        f"  pictures        {job.directory.pictures}\n"
        f"  W&B             {job.directory.root / 'wandb'}"
    )


def _publish(job: Job, progress: Progress) -> Checkpoint:
    weights = job.engine.consolidate(job.directory.checkpoints, checkpoints.name_of(progress.step))
    stream = job.train_stream
    about = {"datasets": list(stream.datasets), "channels": list(stream.channels), "subjects": stream.source.subjects()}
    scores = publishing.last_validation(job.directory.metrics)
    card = pretrained.card(
        job.config, scores, progress, job.train_stream, sum(value.numel() for value in weights.values())
    )
    text = job.directory.config.read_text()
    made = publishing.publish(
        job.config, job.directory, weights, progress, text=text, card=card, metrics=scores, about=about
    )
    said = {"step": progress.step, "model": made.reference, "path": made.where}
    job.directory.finish({**said, "store": publishing.store_path(job.config, job.directory)})
    return made
