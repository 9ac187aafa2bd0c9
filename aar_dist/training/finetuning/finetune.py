"""Fine-tuning from end to end: one fold, or a final model on all subjects.

config -> stored backbone + head, labelled windows of three sides -> train, select by validation
       -> the best weights: predictions on the test side, the store -> finished
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from aar_dist.base.addresses import without_secrets
from aar_dist.base.config import ClassSpec, arguments, dump
from aar_dist.base.errors import ConfigError, run_door, user_entry
from aar_dist.base.hashing import hash_int, word
from aar_dist.base.interrupts import resumes
from aar_dist.base.wording import some
from aar_dist.objectives.base import Objective
from aar_dist.store.checkpoint import Checkpoint, build_objective, load_weights
from aar_dist.stream.loader import SegmentStream
from aar_dist.stream.windows import WindowTable, window_stream
from aar_dist.training import checkpoints, publishing
from aar_dist.training.adaptation.history import write_history
from aar_dist.training.adaptation.policy import FULL, checked
from aar_dist.training.config import recipe
from aar_dist.training.engine import parameter_shapes
from aar_dist.training.finetuning import card, predictions
from aar_dist.training.finetuning.config import RESOLVED, SCHEMA, FinetuneConfig
from aar_dist.training.finetuning.freezing import policy_of
from aar_dist.training.finetuning.pretrained import (
    begun,
    check_architecture,
    fresh_parameters,
    inflation,
    load_backbone,
    load_config,
    pinned,
    source_of,
    taught,
)
from aar_dist.training.finetuning.task import Task, open_task, resolved, seen_by
from aar_dist.training.finetuning.trained import choice_in
from aar_dist.training.loop import Job
from aar_dist.training.meeting.meeting import meets
from aar_dist.training.metrics import read_rows
from aar_dist.training.phases import Phase, cut, told
from aar_dist.training.plan import Plan
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import Ranks, from_main
from aar_dist.training.run import WEIGHTS, carry_out, place_of, tells_finished

ADAPTERS = word("adapters")


@user_entry
@resumes
@meets
def main(argv: Sequence[str] | None = None) -> None:
    """The command: ``--config FILE`` and dotted overrides. See docs/finetuning.md."""
    finetune(load_config(arguments() if argv is None else argv))


def finetune(config: FinetuneConfig, end: Callable[..., None] | None = None) -> None:
    """Train, or go on training, until the run is finished or asked to stop. One process may call it again and again.

    Args:
        end: What is done with the trained weights, in place of :func:`finish`.
    """
    ranks, directory = place_of(config)
    if tells_finished(directory, ranks):
        return
    config = begun(config)
    source = source_of(config)
    if source:
        check_architecture(config, source)
    task = open_task(config)
    config, head = resolved(pinned(config, source), task)
    task = replace(task, channels=inflation(config, source), taught=taught(config, source, task.sides.test))
    objective = initial_objective(config, head, source)
    phases = adapt(objective, config, source)
    objective.backbone.check_duration(config.data.segment_duration)
    with ExitStack() as stack:
        plan = make_plan(config, task, objective, phases, ranks, stack)
        carry_out(plan, ranks, directory, partial(end or finish, config=config, head=head, task=task))


def initial_objective(config: FinetuneConfig, head: ClassSpec, source: Checkpoint | None) -> Objective:
    """The model before its first step: the stored backbone under a new head."""
    torch.manual_seed(hash_int(config.train.seed, WEIGHTS))
    objective = build_objective(config.model, head)
    if not isinstance(objective, predictions.Predicts):
        raise ConfigError(f"objective {type(objective).__name__} predicts nothing; choose Classification or Regression")
    if source and not config.from_scratch:
        load_backbone(objective.backbone, source, inflation(config, source), seed=config.train.seed)
    return objective


def adapt(objective: Objective, config: FinetuneConfig, source: Checkpoint | None) -> tuple[Phase, ...]:
    """What is going to move of the initial model, which is made ready for it. Raises ``ConfigError``."""
    fresh = fresh_parameters(objective.backbone, inflation(config, source))
    policy = policy_of(config.freeze, config.adapt)
    torch.manual_seed(hash_int(config.train.seed, ADAPTERS))
    policy.prepare(objective)
    phases = checked(policy.phases(objective, config.train.epochs, fresh), objective)
    return cut(phases, config.train.stop_after)


def make_plan(
    config: FinetuneConfig,
    task: Task,
    objective: Objective,
    phases: tuple[Phase, ...],
    ranks: Ranks,
    stack: ExitStack,
) -> Plan:
    """What is going to be done; ``stack`` closes its streams."""

    def stream(table: WindowTable, *, shuffle: bool) -> SegmentStream:
        rank, world = ranks.rank, ranks.world_size
        made = window_stream(
            task.source,
            table,
            config.data,
            shuffle=shuffle,
            sampling=config.train.sampling,
            rank=rank,
            world_size=world,
        )
        return stack.enter_context(closing(made))

    train_stream = stream(task.train, shuffle=True)
    epoch = max(1, round(train_stream.n_segments / config.train.batch_size))
    return Plan(
        config=config,
        text=dump(SCHEMA, config),
        objective=objective,
        phases=phases,
        train_stream=train_stream,
        val_stream=stream(task.validation, shuffle=False) if len(task.validation) else None,
        val_every=epoch,
        save_every=epoch,
        patience=config.train.patience,
        recipe=recipe(config) | _unchangeable(config, task),
        about=_about(config, task, told(phases, parameter_shapes(objective))),
        warnings=tuple(_warnings(config, task, objective, phases)),
    )


def _warnings(config: FinetuneConfig, task: Task, objective: Objective, phases: Sequence[Phase]) -> Iterator[str]:
    if task.missing:
        yield f"no window to train on has the class {', '.join(task.missing)}"
    if task.taught:
        start = without_secrets(config.init_from or "")
        yield (
            f"{start} has learned the labels of {some(task.taught)}, who will be tested: what the test says is no "
            "measure of how it does on others"
        )
    stays = any(not phases[-1].moves(name, parameter) for name, parameter in objective.named_parameters())
    if stays and (config.from_scratch or not config.init_from):
        yield (
            f"the run starts from random weights and trains {phases[-1].name}: the others stay random; give init_from, "
            "or adapt full"
        )


def _unchangeable(config: FinetuneConfig, task: Task) -> dict[str, Any]:
    """What else a resume may not change: the windows, who is on which side, what is trained and from where."""
    sides = {f"split.{name}": subjects for name, subjects in task.sides.told().items()}
    keys = {"init_from": config.init_from, "from_scratch": config.from_scratch, "inflate": config.inflate}
    keys |= {f"train.{name}": getattr(config.train, name) for name in ("class_weights", "sampling")}
    keys |= {f"windows.{name}": value for name, value in asdict(config.windows).items()}
    keys |= {f"freeze.{name}": value for name, value in asdict(config.freeze).items()}
    if config.adapt != ClassSpec(FULL):
        keys |= {"adapt": config.adapt.class_path.rpartition(".")[2]}
        keys |= {f"adapt.{name}": value for name, value in config.adapt.init_args.items()}
    return keys | sides


def _about(config: FinetuneConfig, task: Task, moving: str) -> str:
    label = "a target" if task.classes is None else f"{len(task.classes)} classes"
    sides = ", ".join(
        f"{len(table)} windows of {len(subjects)} subjects {verb}"
        for verb, table, subjects in (
            ("train", task.train, task.sides.train),
            ("select", task.validation, task.sides.validation),
            ("test", task.test, task.sides.test),
        )
        if subjects
    )
    start = "random weights" if config.from_scratch or not config.init_from else without_secrets(config.init_from)
    channels = f"; channels: {task.channels}" if task.channels else ""
    return f"{label} from {start}, {moving}; {sides}{channels}"


def finish(job: Job, progress: Progress, *, config: FinetuneConfig, head: ClassSpec, task: Task) -> None:
    """Test the best weights, publish them and set the marker."""
    made = from_main(lambda: _conclude(job, progress, config, head, task))
    job.console.say("\n".join(made))


def _conclude(job: Job, progress: Progress, config: FinetuneConfig, head: ClassSpec, task: Task) -> list[str]:
    """On rank 0, with the fp32 weights that are published and no engine: what is told is what the stored model does."""
    folder = job.directory.checkpoints
    chosen = checkpoints.chosen(folder)
    weights = policy_of(config.freeze, config.adapt).plain(job.engine.consolidate(folder, chosen.path.name))
    about = _made(config, task, chosen, progress, job.train_stream.n_segments) | choice_in(job.directory.root)
    about |= {"adapted": told(job.phases, job.engine.parameters)}
    about |= {"best_phase": job.phases[chosen.progress.phase].name}
    write_history(job.directory.root, [phase.name for phase in job.phases], job.val_every)
    scores = _tested(job, config, head, task, weights, about)
    made = publishing.publish(
        job.config,
        job.directory,
        weights,
        replace(progress, step=chosen.step),
        text=dump(RESOLVED, replace(config, objective=head)),
        card=card.card(config, scores, task, about, job.directory.root),
        metrics=scores or about,
        about={**about, **_rebuild(config, task)},
    )
    store = publishing.store_path(job.config, job.directory)
    said = {"step": progress.step, "model": made.reference, "path": made.where, "store": store}
    job.directory.finish({**said, "fold": config.split.fold, "scores": card.headline(scores)})
    early = f", stopped early (patience {config.train.patience})" if progress.step < job.total_steps else ""
    return [
        f"finished {progress.step} steps{early}, best at {chosen.step}: {made.reference} in {store}",
        f"  test            {card.headline_text(scores)}",
        f"  predictions     {job.directory.root}",
        f"  every number    {job.directory.metrics}",
    ]


def _made(
    config: FinetuneConfig, task: Task, chosen: checkpoints.Saved, progress: Progress, epoch: int
) -> dict[str, Any]:
    """What the manifest and metrics.json say of how the weights came about."""
    return {
        "fold": config.split.fold,
        "best_step": chosen.step,
        "val_loss": chosen.val_loss,
        "steps": progress.step,
        "split": task.sides.told(),
        "trained_on": {**task.amount(config.split.train_share), "windows_of_an_epoch": epoch},
        "init_from": None if config.from_scratch else without_secrets(config.init_from or "") or None,
        **({"inflation": task.channels.told()} if task.channels else {}),
        **({"taught_before": list(task.taught)} if task.taught else {}),
    }


def _tested(
    job: Job,
    config: FinetuneConfig,
    head: ClassSpec,
    task: Task,
    weights: dict[str, torch.Tensor],
    about: dict[str, Any],
) -> dict[str, Any]:
    """Predictions on the test side, written, and on the side that chose the weights; {} without a test."""
    if not len(task.test):
        return {}
    step = about["steps"]
    model = build_objective(config.model, head)
    load_weights(model, weights, "the best checkpoint")
    model = model.to(job.engine.device).eval()
    assert isinstance(model, predictions.Predicts), "checked at the start"
    beat = partial(job.health.pulse.beat, "publishing", step)

    def said(table: WindowTable) -> predictions.Predictions:
        with closing(window_stream(task.source, table, config.data, shuffle=False)) as stream:
            return predictions.predict(model, stream, table, config.train.batch_size, job.engine.device, beat)

    folder, fold = job.directory.root, config.split.fold
    if len(task.validation):
        predictions.write_windows(said(task.validation), predictions.file_of(folder, predictions.VALIDATION, fold))
    scores = predictions.write(said(task.test), folder, fold, about)
    if not any("test/n" in row for row in read_rows(job.directory.metrics)):
        tested = {f"test/{name}": value for name, value in card.headline(scores).items()}
        job.record({"step": step, "test/n": len(task.test), **tested})
    return scores


def _rebuild(config: FinetuneConfig, task: Task) -> dict[str, Any]:
    """What prediction needs to know beside the module."""
    return {
        "classes": None if task.classes is None else list(task.classes),
        "windows": {"segment_duration": config.data.segment_duration, **asdict(config.windows)},
        "datasets": list(task.datasets),
        "channels": list(task.source.channels),
        **seen_by(task.source, task.train),
    }


if __name__ == "__main__":  # several ranks of a fold: deepspeed --module aar_dist.training.finetuning.finetune
    run_door(main)
