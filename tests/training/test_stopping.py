"""Asked to stop in the middle of a step or of a validation: it leaves at once, and nothing differs in the end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from launching import environment, numbers

from aar_dist.base.storage import read_json, sha256
from aar_dist.store.checkpoint import WEIGHTS
from aar_dist.training.checkpoints import complete, read

pytestmark = pytest.mark.launch


@pytest.fixture(scope="module")
def stopped(shard_set, tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder of both runs, and what was said."""
    folder = tmp_path_factory.mktemp("stopping")
    script = Path(__file__).with_name("stopping_script.py")
    paths = os.pathsep.join([str(script.parents[1]), str(script.parents[2])])
    done = subprocess.run(
        [sys.executable, script, shard_set, folder], env=environment(PYTHONPATH=paths), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout.splitlines()


def test_it_stopped_where_it_was_asked_to(stopped):
    said = [line for line in stopped[1] if line.startswith("stopped")]
    then = "the same command goes on from there"
    assert said == [
        f"stopped at step 0 and saved, as its time limit is near; {then}",
        *(f"stopped at step {step} and saved, as rank 0 got SIGUSR1; {then}" for step in (0, 2, 4, 8)),
    ]


def test_the_run_equals_an_undisturbed_one(stopped):
    whole, broken = stopped[0] / "whole", stopped[0] / "broken"
    rows = [numbers(out) for out in (whole, broken)]
    assert rows[1] == rows[0]
    assert len([row for row in rows[0] if "val/loss" in row]) == 3
    stored = [sha256(out / "store" / "models" / "aar" / "1" / WEIGHTS) for out in (whole, broken)]
    assert stored[1] == stored[0]
    assert read_json(broken / "finished")["step"] == 8


def test_a_checkpoint_learns_of_the_validation_that_came_later(stopped):
    losses = [
        {path.name: read(path).val_loss for path in complete(stopped[0] / name / "checkpoints")}
        for name in ("whole", "broken")
    ]
    assert losses[1] == losses[0]
    assert None not in losses[0].values()
