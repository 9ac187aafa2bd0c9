"""What every kind of run does between its plan and its end.

plan -> run directory claimed -> engine, restored -> Job, Progress  (-> loop, for each phase -> publishing)
"""

import gc
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace

import torch

from aar_dist.base.hashing import word
from aar_dist.base.last_word import LastWord
from aar_dist.training import checkpoints, metrics, publishing, saving, tracking
from aar_dist.training.config import RunConfig
from aar_dist.training.console import Console
from aar_dist.training.engine import check_zero_options
from aar_dist.training.engines import make_engine, of_phase
from aar_dist.training.group import lost_peer, process_group
from aar_dist.training.health.hang import watched
from aar_dist.training.health.monitor import look_after
from aar_dist.training.loop import Job, train
from aar_dist.training.meeting.meeting import attend
from aar_dist.training.plan import Plan
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import Ranks, from_main
from aar_dist.training.resharding.change import changed, told
from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.stopping.deadline import Deadline
from aar_dist.training.stopping.launcher import LauncherWatch
from aar_dist.training.stopping.stopper import Stopper
from aar_dist.training.tracking.nodes import Nodes

WEIGHTS = word("weights")


def place_of(config: RunConfig) -> tuple[Ranks, RunDirectory]:
    """This process among all, and the folder of the run. Raises ``ConfigError`` where the batch cannot be shared, or
    without a folder."""
    ranks = Ranks.from_environment()
    config.deepspeed.check_ranks(ranks.world_size)
    config.train.micro_batches(ranks.world_size)
    return ranks, RunDirectory.of(config.out)


def tells_finished(directory: RunDirectory, ranks: Ranks) -> bool:
    """True of a run that has nothing left to do, and says so."""
    with attend() as met:
        said = met.of_main(directory.finished)
    if said and ranks.main:
        print(f"{directory.root} is finished: {said['model']} in {said['store']}. A new run needs another --out")
    return said is not None


def carry_out(plan: Plan, ranks: Ranks, directory: RunDirectory, finish: Callable[[Job, Progress], None]) -> None:
    """Train, or go on training; ``finish`` is called on every rank with all that is left to do."""
    with ExitStack() as stack:
        met = stack.enter_context(attend())
        streams = [stream for stream in (plan.train_stream, plan.val_stream) if stream]
        met.agree(plan.text, [stream.identity for stream in streams], plan.config.data.shards, directory.root)
        device = stack.enter_context(process_group(ranks, plan.config.health.collective_timeout))
        check_zero_options(plan.config.deepspeed)
        stack.enter_context(lost_peer(ranks, directory.root))
        launcher = stack.enter_context(closing(LauncherWatch().watch()))
        deadline = Deadline.of(plan.config.train.time_limit_min)
        stopper = stack.enter_context(Stopper(ranks, deadline, launcher))
        engines = stack.enter_context(ExitStack())
        job, progress = compose(plan, ranks, device, directory, engines, stack)
        deadline.expect(job.engine.checkpoint_bytes)
        progress = train(job, progress, stopper)
        while not stopper.reason and plan.course.goes_on(progress):
            job, progress = change_phase(plan, job, progress, engines)
            progress = train(job, progress, stopper)
        job.health.pulse.beat("publishing", progress.step)
        if stopper.reason:
            job.health.stopped(progress.step, stopper.reason)
            LastWord(stopper.kind, stopper.reason, may_pass=True).leave()
            job.console.say(
                f"stopped at step {progress.step} and saved, as {stopper.reason}; the same command goes on from there"
            )
        else:
            finish(job, progress)


def compose(
    plan: Plan, ranks: Ranks, device: torch.device, directory: RunDirectory, engines: ExitStack, stack: ExitStack
) -> tuple[Job, Progress]:
    """Everything the loop needs, restored to where the run stands; ``engines`` closes the engine, ``stack`` all else.
    A launch that is refused leaves the run directory as it was."""
    config, stream = plan.config, plan.train_stream
    from_main(lambda: claim(directory, stack))
    progress = Progress.start(stream.identity, config.data, config.train.seed, plan.recipe)
    found = saving.find(directory)
    if found.saved:
        saving.check_continues(found.saved, progress, plan.objective)
        plan.course.check_continues(found.saved.progress, found.saved.path)
    from_main(lambda: publishing.prepare_store(config, directory))
    directory.open_log(ranks)
    watch = stack.enter_context(watched(ranks, directory.log, config.health))
    engine, progress = make_engine(plan, found.saved, progress, ranks, device, directory, engines)
    for each in (stream, plan.val_stream):
        if each:
            each.place(device)
    from_main(lambda: take_over(directory, plan.text, found))
    progress = replace(progress, run_id=from_main(lambda: tracking.run_id(directory.root)))
    total_steps = plan.course.total(progress)
    console = Console(ranks, total_steps)
    stack.callback(console.close)
    file, tracker = recorders(plan, console, directory, progress, total_steps, ranks, stack)
    job = Job(
        config=config,
        ranks=ranks,
        engine=engine,
        train_stream=stream,
        val_stream=plan.val_stream,
        directory=directory,
        file=file,
        tracker=tracker,
        health=look_after(config, console, stream, directory, progress, tracker, watch),
        console=console,
        val_every=plan.val_every,
        save_every=plan.save_every,
        nodes=Nodes(ranks, device),
        pictures=plan.pictures,
        **of_phase(plan, progress, directory),
    )
    announce(job, plan, progress, found)
    return job, progress


def change_phase(plan: Plan, job: Job, progress: Progress, engines: ExitStack) -> tuple[Job, Progress]:
    """The next phase, from the checkpoint that the last one ended with."""
    job.health.pulse.beat("starting", progress.step)
    path = job.directory.checkpoints / checkpoints.name_of(progress.step)
    saved = from_main(lambda: checkpoints.read(path))
    engines.close()
    gc.collect()  # a model has cycles: without this two of them are in memory
    engine, progress = make_engine(plan, saved, progress, job.ranks, job.engine.device, job.directory, engines)
    job = replace(job, engine=engine, **of_phase(plan, progress, job.directory))
    phase = plan.course.now(progress)
    job.console.say(
        f"step {progress.step}: {phase.name} until step {job.until}, {phase.n_moving(engine.parameters):,} parameters "
        f"move, learning rate x {phase.fastest:g}, a fresh optimizer"
    )
    return job, progress


def claim(directory: RunDirectory, stack: ExitStack) -> None:
    """Take the run directory for this launch (rank 0)."""
    stack.enter_context(directory.lock())


def take_over(directory: RunDirectory, config: str, found: saving.Found) -> None:
    """Make the run directory this launch's, now that nothing can refuse it any more (rank 0)."""
    directory.prepare(config)
    checkpoints.disown(found.damaged)


def recorders(
    plan: Plan,
    console: Console,
    directory: RunDirectory,
    progress: Progress,
    total_steps: int,
    ranks: Ranks,
    stack: ExitStack,
) -> tuple[metrics.MetricsFile | None, tracking.Run]:
    """The metrics file, cut back to where the run stands, and its mirror; on rank 0."""
    if not console.main:
        return None, tracking.NoTracker(directory.root)
    metrics.trim(directory.metrics, progress.step if progress.step else -1)
    file = stack.enter_context(closing(metrics.MetricsFile(directory.metrics)))
    attempt = tracking.begin(
        directory.root,
        world_size=ranks.world_size,
        from_step=progress.step,
        val_every=plan.val_every,
        total_steps=total_steps,
        shards=plan.train_stream.source.told(),
    )
    return file, stack.enter_context(tracking.start(plan.config.tracking, directory.root, attempt, warn=console.warn))


def announce(job: Job, plan: Plan, progress: Progress, found: saving.Found) -> None:
    """Say what is about to happen."""
    for problem in found.damaged.values():
        job.console.warn(f"{problem}; going back to the checkpoint before it")
    if found.saved and changed(found.saved.layout, job.engine.layout):
        job.console.say(told(found.saved, job.engine.layout, job.config.train))
    n_parameters = sum(torch.Size(shape).numel() for shape in job.engine.parameters.values())
    where = f"goes on from step {progress.step}" if progress.step else "starts"
    job.console.say(
        f"{job.directory.root} {where}: {n_parameters:,} parameters, {job.total_steps} steps of "
        f"{job.config.train.batch_size} segments, {job.ranks.world_size} rank(s) on {job.engine.device.type}, ZeRO-"
        f"{job.config.deepspeed.zero_stage}, {job.engine.layout['precision']}; {plan.about}"
    )
    room = saving.room_ahead(job.engine, job.directory.checkpoints, job.config.train.retention, job.total_steps)
    for warning in filter(None, (*plan.warnings, job.config.train.crumbs(job.ranks.world_size), room)):
        job.console.warn(warning)
