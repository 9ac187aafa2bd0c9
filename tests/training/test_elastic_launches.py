"""Whole launches on a cluster that changed: two ranks are killed, and the same command goes on with one."""

import signal
import subprocess
import sys

import pytest
from launching import ROOT, TINY, environment, finish, flags, losses, signal_at_step, start, validations

from aar_dist.base.storage import hash_tree
from aar_dist.store.registry import resolve
from aar_dist.training.checkpoints import complete

pytestmark = pytest.mark.launch

SETTINGS = {
    "model.transformer_dropout": 0.0,
    "train.micro_batch_size": 12,
    "train.max_steps": 16,
    "train.val_every": 8,
    "deepspeed.precision": "fp32",
}


def alone(out, shards, settings):
    """The command without a launcher: exit code and output."""
    given = TINY | SETTINGS | settings | {"out": str(out), "data.shards": str(shards)}
    command = [sys.executable, "launch/pretrain.py", *flags(given)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=180)
    return done.returncode, done.stdout + done.stderr


def test_killed_on_two_ranks_and_gone_on_with_one(tmp_path, shard_set):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert alone(whole, shard_set, {"deepspeed.zero_stage": 0})[0] == 0

    launch = start(broken, shard_set, SETTINGS | {"deepspeed.zero_stage": 2})
    signal_at_step(launch, broken, 6, rank=1, number=signal.SIGKILL)
    assert finish(launch)[0] != 0
    newest = complete(broken / "checkpoints")[-1]
    kept = hash_tree(newest)
    step = int(newest.name[-8:])
    (broken / "checkpoints" / "PINNED").write_text(newest.name)

    code, said = alone(broken, shard_set, {"deepspeed.zero_stage": 3, "deepspeed.offload": "all"})
    assert code == 0, said
    old, new = "2 ranks at ZeRO 2 (offload none)", "1 rank at ZeRO 3 (offload all)"
    assert f"resharding step {step} from {old} to {new}; accumulation 2 -> 4" in said
    assert hash_tree(newest) == kept
    assert [row[0] for row in losses(broken)] == list(range(1, 17))
    assert [row[1] for row in losses(broken)] == pytest.approx([row[1] for row in losses(whole)], rel=1e-4)
    for row, other in zip(validations(broken), validations(whole), strict=True):
        assert row["val/loss"] == pytest.approx(other["val/loss"], rel=1e-4)
    assert resolve("store://aar@1", broken / "store").manifest["step"] == 16
