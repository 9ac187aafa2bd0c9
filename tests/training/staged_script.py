"""Run with and without the launcher by test_staged.py: whole fine-tuning runs in one process, one after the other.

argv: output folder, flags that all share, then runs NAME[<SOURCE@STEP[!]][=FLAGS], with a space between flags. One with
a source goes on from it as it would be had it been killed after that step, or, with ``!``, asked to stop there before
its validation. Beside the run NAME, NAME_k.pt holds the fp32 weights that its k-th engine held before its first step
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import torch

from aar_dist.training import checkpoints, run
from aar_dist.training.engine import Engine
from aar_dist.training.finetuning.finetune import finetune
from aar_dist.training.finetuning.pretrained import load_config
from aar_dist.training.meeting.meeting import meets
from aar_dist.training.metrics import read_rows
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import barrier, from_main

made_by_run = run.make_engine


def look_at(out: Path) -> None:
    """From now on, every engine of a run is asked for its weights as soon as it is made."""
    count = 0

    def look(*arguments: object) -> tuple[Engine, Progress]:
        nonlocal count
        engine, progress = made_by_run(*arguments)
        count += 1
        folder = out.with_name("looked")
        engine.save(folder, f"{out.name}_{count}", {})
        barrier()
        weights = from_main(lambda: engine.consolidate(folder, f"{out.name}_{count}"))
        torch.save(weights, out.with_name(f"{out.name}_{count}.pt"))
        return engine, progress

    run.make_engine = look


def ended_after(step: int, source: Path, out: Path, *, validated: bool) -> None:
    """What a kill, or a stop, would have left of a run that is finished."""
    shutil.copytree(source, out)
    (out / "finished").unlink()
    for path in checkpoints.complete(out / "checkpoints"):
        if checkpoints.read(path).step > step:
            shutil.rmtree(path)
        elif checkpoints.read(path).step == step and not validated:
            checkpoints.learn(path, None)
            metrics = out / "metrics.jsonl"
            kept = [row for row in read_rows(metrics) if row["step"] < step or "loss" in row]
            metrics.write_text("".join(json.dumps(row) + "\n" for row in kept))


if __name__ == "__main__":
    folder, *arguments = [a for a in sys.argv[1:] if not a.startswith("--local_rank")]
    shared = [a for a in arguments if a.startswith("--")]
    port = int(os.environ.get("MASTER_PORT", "0"))
    for number, text in enumerate(arguments[len(shared) :]):
        if port:  # one meeting for each run, as in a launch, each at a place of its own: who is early meets nobody else
            os.environ["MASTER_PORT"] = str(port + number)
        name, source, step, stopped, more = re.fullmatch(r"([^<=]+)(?:<([^@]+)@(\d+)(!?))?=?(.*)", text).groups()
        out = Path(folder) / name
        if source:
            ended_after(int(step), Path(folder) / source, out, validated=not stopped)
        look_at(out)
        meets(finetune)(load_config([*shared, *more.split(), f"--out={out}", f"--store.name={name}"]))
