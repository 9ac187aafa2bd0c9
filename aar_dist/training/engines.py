"""The engine that a run needs where it stands, and what else belongs to a phase.

what was saved, metrics.jsonl -> the phase that goes on, or the next one -> Engine, Progress
"""

from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch

from aar_dist.training import checkpoints, metrics, saving
from aar_dist.training.engine import Engine
from aar_dist.training.patience import Patience
from aar_dist.training.plan import Plan
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import Ranks, from_main
from aar_dist.training.run_directory import RunDirectory


def make_engine(
    plan: Plan,
    saved: checkpoints.Saved | None,
    start: Progress,
    ranks: Ranks,
    device: torch.device,
    directory: RunDirectory,
    engines: ExitStack,
) -> tuple[Engine, Progress]:
    """An engine that goes on from what was saved, in its phase or, if that has ended there, in the next one."""
    config, course = plan.config, plan.course
    new_phase = saved is not None and from_main(lambda: ended(plan, saved.progress, directory))
    at = saved.progress if saved else start
    at = at.next_phase() if new_phase else at
    kept = plan.phases[0].kept(plan.objective)
    # A later phase begins from the model as it was given: what this engine does to its own cannot be undone.
    objective = plan.objective if course.last(at) else deepcopy(plan.objective)
    course.now(at).apply(objective)
    source = saving.reshard(saved, objective, config, ranks, device, new_phase=new_phase)
    factors = course.now(at).factors
    engine = Engine(objective, config.deepspeed, config.train, config.optim, ranks, device, factors, kept)
    engines.callback(engine.close)
    progress = saving.restore(engine, saved, source, new_phase=new_phase) if saved else start
    return engine, replace(progress, phase_name=course.now(progress).name)


def ended(plan: Plan, progress: Progress, directory: RunDirectory) -> bool:
    """True if the phase is over and another one follows (rank 0)."""
    over = progress.step >= plan.course.until(progress)
    return plan.course.goes_on(progress) and (over or patience_of(plan, progress, directory).spent)


def of_phase(plan: Plan, progress: Progress, directory: RunDirectory) -> dict[str, Any]:
    """What a job has of its phase."""
    course = plan.course
    return {
        "total_steps": course.total(progress),
        "until": course.until(progress),
        "since": progress.phase_step,
        "phases": plan.phases,
        "phase": progress.phase + 1 if len(plan.phases) > 1 else None,
        "fastest": course.now(progress).fastest,
        "patience": from_main(lambda: patience_of(plan, progress, directory)),
    }


def patience_of(plan: Plan, progress: Progress, directory: RunDirectory) -> Patience:
    """Where the patience of a phase stands (rank 0): each has its own."""
    return Patience(plan.patience, past_validations(directory, progress))


def past_validations(directory: RunDirectory, progress: Progress) -> list[float | None]:
    """Validation losses of the steps of this phase so far; that of the model it began with is none of them."""
    rows = metrics.read_rows(directory.metrics)
    return [row["val/loss"] for row in rows if "val/loss" in row and progress.phase_step < row["step"] <= progress.step]
