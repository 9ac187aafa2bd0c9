"""The supervisor over real launches on this machine. Faults on two hosts: tests/cluster/test_chaos.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import ROOT, TINY, environment, flags, losses

from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.supervision import attempts, leftovers
from aar_dist.training.supervision.watch import newest_step

pytestmark = pytest.mark.launch


def supervise(out: Path, shards: Path | str, settings: dict, ranks: int = 1, **env: str) -> subprocess.Popen:
    door = [sys.executable, "launch/supervise.py", "--num_accelerators", str(ranks), "launch/pretrain.py"]
    return subprocess.Popen(
        [*door, "--out", out, "--data.shards", shards, *flags(TINY | settings)], cwd=ROOT, env=environment(**env),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_asked_to_stop_it_has_the_run_save_and_leave(tmp_path, shard_set):
    out = tmp_path / "run"
    settings = {"train.max_steps": 100_000, "train.save_every": 100_000, "train.val_every": 100_000}
    process = supervise(out, shard_set, settings)
    deadline = time.monotonic() + 120
    while len(losses(out)) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "the supervisor got SIGTERM: the run saves and leaves" in said
    assert said.splitlines()[-1].endswith("supervise: stopped; the same command goes on")
    (made,) = attempts.read(out)
    assert made.how == "stopped: the supervisor got SIGTERM"
    assert newest_step(RunDirectory.of(str(out))) == losses(out)[-1][0]
    assert leftovers.marked(str(out)) == {}


def test_a_mistake_that_only_the_ranks_can_see_is_not_tried_again(tmp_path):
    process = supervise(tmp_path / "run", tmp_path / "no_shards", {})
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 2, said
    assert len(attempts.read(tmp_path / "run")) == 1
    assert f"no other attempt would end otherwise: ShardError: {tmp_path / 'no_shards'}" in said
    assert os.path.exists(tmp_path / "run" / "log" / "attempt_0001.log")
