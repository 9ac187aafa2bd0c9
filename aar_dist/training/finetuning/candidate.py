"""One of several settings that a fold chooses from: trained like any run, and not tested.

config -> finetune(…, end=set_aside) -> trained.json, and its checkpoints stay

deepspeed … --module aar_dist.training.finetuning.candidate --config job.yaml
"""

from collections.abc import Sequence
from typing import Any

from aar_dist.base import json_lines, storage
from aar_dist.base.config import arguments
from aar_dist.base.errors import ConfigError, one_line, run_door, user_entry
from aar_dist.base.interrupts import resumes
from aar_dist.training import checkpoints
from aar_dist.training.finetuning.config import FinetuneConfig
from aar_dist.training.finetuning.finetune import finetune
from aar_dist.training.finetuning.pretrained import load_config
from aar_dist.training.finetuning.trained import TRAINED
from aar_dist.training.loop import Job
from aar_dist.training.meeting.meeting import meets
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import Ranks, from_main
from aar_dist.training.run_directory import RunDirectory


@user_entry
@resumes
@meets
def main(argv: Sequence[str] | None = None) -> None:
    """Train one candidate."""
    train_candidate(load_config(arguments() if argv is None else argv))


def train_candidate(config: FinetuneConfig) -> None:
    """Train, or go on training, and set the run aside. One whose loss is no number any more is never chosen."""
    directory = RunDirectory.of(config.out)
    try:
        finetune(config, set_aside)
    except ConfigError as error:
        if not _gave_up(directory):
            raise
        if Ranks.from_environment().main:
            storage.write_json(directory.root / TRAINED, {"val_loss": None, "why": one_line(error)})


def set_aside(job: Job, progress: Progress, **of_the_run: Any) -> None:
    """Tell how good the best weights are on the validation subjects."""

    def tell() -> None:
        best = checkpoints.chosen(job.directory.checkpoints)
        told = {"val_loss": best.val_loss, "best_step": best.step, "steps": progress.step}
        storage.write_json(job.directory.root / TRAINED, told)

    from_main(tell)
    job.console.say(f"trained {progress.step} steps, not tested: one of several that the validation chooses from")


def _gave_up(directory: RunDirectory) -> bool:
    """True if the run ended because its loss was no number, step after step."""
    return any(row["kind"] == "gave_up" for row in json_lines.read(directory.events))


if __name__ == "__main__":
    run_door(main)
