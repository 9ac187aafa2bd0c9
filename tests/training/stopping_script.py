"""One process trains without and with stops in the middle of things: ``python stopping_script.py SHARDS FOLDER``.

FOLDER/whole is not disturbed; FOLDER/broken stops in its first validation for its time limit and for a signal, within a
step, in the validation of step 4 and in its last one, each time followed by the same command.
"""

import os
import signal
import sys
from collections.abc import Iterator

from launching import TINY, flags

from aar_dist.stream.loader import SegmentStream
from aar_dist.training.engine import Engine
from aar_dist.training.pretrain import main
from aar_dist.training.stopping import stopper

SETTINGS = {
    **TINY,
    "data.shards": sys.argv[1],
    "train.micro_batch_size": 8,
    "train.max_steps": 8,
    "train.val_every": 4,
    "deepspeed.zero_stage": 2,
}
MICRO_BATCHES = 4
due = {"micro-batch": 0, "validation": 0}
"""The call at which the signal comes."""
stopper.LOOK_EVERY_S = 0.0

evaluation, micro_step = SegmentStream.evaluation, Engine.micro_step


def count(what: str) -> None:
    due[what] -= 1
    if due[what] == 0:
        os.kill(os.getpid(), signal.SIGUSR1)


def disturbed_evaluation(self, *arguments) -> Iterator:
    count("validation")
    yield from evaluation(self, *arguments)


def disturbed_micro_step(self, batch):
    count("micro-batch")
    return micro_step(self, batch)


SegmentStream.evaluation, Engine.micro_step = disturbed_evaluation, disturbed_micro_step


def run(name: str, *more: str, **when: int) -> None:
    due.update(when)
    main([*flags(SETTINGS), f"--out={sys.argv[2]}/{name}", *more])


run("whole")
run("broken", "--train.time_limit_min=0.01")
for when in (
    {"validation": 1},
    {"validation": 0, "micro-batch": 2 * MICRO_BATCHES + 2},
    {"micro-batch": 0, "validation": 1},
    {"validation": 2},
    {"validation": 0},
):
    run("broken", **when)
