"""Saving and restoring a run, all ranks together.

save:    room? -> every rank writes into staging -> rank 0 hashes, publishes, prunes
restore: rank 0 verifies the newest -> verdict to all -> every rank loads; DeepSpeed's way if the cluster is as it was,
         else by resharding
"""

import errno
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aar_dist.base import storage
from aar_dist.base.cli import human_bytes
from aar_dist.base.errors import StorageError
from aar_dist.objectives.base import Objective
from aar_dist.training import checkpoints
from aar_dist.training.checkpoints import Saved
from aar_dist.training.config import RunConfig
from aar_dist.training.engine import Engine, parameter_shapes
from aar_dist.training.health.retention import Retention
from aar_dist.training.metrics import MetricsFile
from aar_dist.training.options import layout_of
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import Ranks, barrier, from_main
from aar_dist.training.resharding.change import changed
from aar_dist.training.resharding.source import Source
from aar_dist.training.run_directory import RunDirectory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What there is to resume from, and what rank 0 has to say about it."""

    saved: Saved | None
    damaged: dict[Path, str]
    """Newer ones that cannot be used, and why."""


def find(directory: RunDirectory) -> Found:
    """The newest whole checkpoint, agreed by all ranks. Raises ``CheckpointError`` on every rank if all are damaged."""
    return from_main(lambda: Found(*checkpoints.newest_whole(directory.checkpoints)))


def save(
    engine: Engine,
    directory: RunDirectory,
    ranks: Ranks,
    progress: Progress,
    val_loss: float | None,
    retention: Retention,
    file: MetricsFile | None,
) -> Path:
    """Write a checkpoint; every rank must call it. Raises ``StorageError``: what was saved before is left as it was."""
    final = directory.checkpoints / checkpoints.name_of(progress.step)
    staging = from_main(lambda: _room_for(engine, final))
    with storage.one_line_errors(final, *([staging] if ranks.main else [])):
        try:
            engine.save(directory.checkpoints, staging.name, {"progress": progress.state()})
        except RuntimeError as error:
            # torch says so when a write fails halfway.
            if "PytorchStreamWriter" not in str(error):
                raise
            raise OSError(errno.ENOSPC, str(error).splitlines()[0]) from error
    barrier()
    about = {
        "architecture": engine.parameters,
        "layout": engine.layout,
        "progress": progress.to_dict(),
        "val_loss": val_loss,
    }
    return from_main(lambda: _publish(staging, final, about, retention, file))


def _room_for(engine: Engine, final: Path) -> Path:
    """The staging name, if the disk has room for what will be written there."""
    free = shutil.disk_usage(final.parent).free
    if free < engine.checkpoint_bytes:
        raise StorageError(
            f"{final}: the disk is full: a checkpoint needs {engine.checkpoint_bytes / 1e6:.1f} MB and there are "
            f"{free / 1e6:.1f} MB left; free space there and run the same command again"
        )
    return storage.staging_name(final)


def room_ahead(engine: Engine, folder: Path, retention: Retention, total_steps: int) -> str | None:
    """What to say, if all the checkpoints that a run will keep do not fit on the disk."""
    there = len(checkpoints.complete(folder))
    most = retention.most(total_steps)
    more, free = max(0, most - there) * engine.checkpoint_bytes, shutil.disk_usage(folder).free
    if free >= more:
        return None
    return (
        f"up to {most} checkpoints of {human_bytes(engine.checkpoint_bytes)} will be in {folder} at one time: "
        f"{human_bytes(more)} more, and {human_bytes(free)} are free; free space there, keep fewer (train.keep_last, "
        "train.keep_every), or the run will end when the disk is full"
    )


def _publish(staging: Path, final: Path, about: dict[str, Any], retention: Retention, file: MetricsFile | None) -> Path:
    with storage.one_line_errors(final, staging):
        if file:
            file.sync()
        checkpoints.write_manifest(staging, about)
    checkpoints.publish(staging, final)
    removed = checkpoints.prune(final.parent, retention)
    log.info("saved %s, removed %s", final.name, ", ".join(p.name for p in removed) or "none")
    return final


def learn(directory: RunDirectory, step: int, val_loss: float | None, retention: Retention) -> None:
    """Tell the checkpoint of this step, if it is there and knows none, the validation loss that came later (rank 0)."""
    path = directory.checkpoints / checkpoints.name_of(step)
    if directory.holds(step) and checkpoints.read(path).val_loss is None:
        checkpoints.learn(path, val_loss)
        checkpoints.prune(directory.checkpoints, retention)


def check_continues(saved: Saved, start: Progress, objective: Objective) -> None:
    """Raise ``CheckpointError`` unless a run that starts so may go on from what was saved."""
    start.check_continues(saved.progress, saved.path)
    checkpoints.check_same_model(saved, parameter_shapes(objective))


def reshard(
    saved: Saved | None,
    objective: Objective,
    config: RunConfig,
    ranks: Ranks,
    device: torch.device,
    *,
    new_phase: bool = False,
) -> Source | None:
    """If DeepSpeed cannot load what was saved into this cluster, or must not as other parameters will move: the weights
    are put into the objective, which must not be DeepSpeed's yet, and the rest of it is what is returned, for
    :func:`restore`."""
    if saved is None or not (new_phase or changed(saved.layout, layout_of(config.deepspeed, ranks, device))):
        return None
    source = Source(saved.path)
    source.fill(objective)
    return source


def restore(engine: Engine, saved: Saved, source: Source | None, *, new_phase: bool = False) -> Progress:
    """Load a verified checkpoint; a new phase has an optimizer of its own."""
    if source and not new_phase:
        engine.take_moments(source)
    state = source.client_state if source else engine.load(saved.path.parent, saved.path.name)
    progress = saved.progress.resumed(state["progress"])
    return progress.next_phase() if new_phase else progress
