"""The job scripts on a SLURM of two nodes."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from launching import ROOT, TINY, environment, flags, losses, run, wait_for_step
from slurm import Slurm

pytestmark = [pytest.mark.launch, pytest.mark.slow]

LONG = TINY | {"train.max_steps": 120, "train.val_every": 60, "train.save_every": 40}
CPU_NODES = ["--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1"]


@pytest.fixture(scope="module")
def alone(shard_set, tmp_path_factory) -> list[tuple[int, float, float]]:
    """The losses of two ranks of one host."""
    out = tmp_path_factory.mktemp("alone")
    code, said = run(out, shard_set, LONG)
    assert code == 0, said
    return losses(out)


def submit(slurm: Slurm, out: Path, shards: Path, settings: dict, *options: str) -> int:
    names = {"OUT": out, "SHARDS": shards, "CONFIG": "configs/pretrain/aar.yaml", "VENV": sys.prefix}
    words = [*CPU_NODES, f"--output={out}.log", *options, "launch/slurm/pretrain.sbatch", *flags(settings)]
    return slurm.submit(words, cwd=ROOT, env=environment(**{name: str(value) for name, value in names.items()}))


def test_two_nodes_lose_what_one_host_loses(slurm, alone, shard_set, tmp_path):
    job = submit(slurm, tmp_path / "run", shard_set, LONG)
    said = slurm.wait(job, "COMPLETED", "FAILED", "NODE_FAIL", "TIMEOUT")
    log = (tmp_path / "run.log").read_text()
    assert said["JobState"] == "COMPLETED", log
    assert losses(tmp_path / "run") == alone
    assert "host1" in (tmp_path / "run" / "log" / "rank_0.log").read_text()
    assert "host2" in (tmp_path / "run" / "log" / "rank_1.log").read_text()


def test_a_preempted_run_is_requeued_and_goes_on(slurm, alone, shard_set, tmp_path):
    job = submit(slurm, tmp_path / "run", shard_set, LONG)
    wait_for_step(tmp_path / "run", 10)
    slurm.command("scancel", "--signal=USR1", str(job))
    slurm.wait(job, "PENDING")
    assert not (tmp_path / "run" / "finished").exists()
    said = slurm.wait(job, "COMPLETED", "FAILED", "NODE_FAIL", "TIMEOUT")
    log = (tmp_path / "run.log").read_text()
    assert said["JobState"] == "COMPLETED", log
    assert said["Restarts"] == "1"
    assert "goes on from step" in log
    assert losses(tmp_path / "run") == alone


def test_a_mistake_is_told_once_and_not_requeued(slurm, shard_set, tmp_path):
    job = submit(slurm, tmp_path / "run", shard_set, LONG | {"train.batch_size": 33})
    said = slurm.wait(job, "FAILED", "COMPLETED")
    assert (said["JobState"], said["ExitCode"], said["Restarts"]) == ("FAILED", "2:0", "0")
    lines = (tmp_path / "run.log").read_text().splitlines()
    (told,) = [line for line in lines if line.startswith("error")]
    assert "train.batch_size 33 is not a multiple of 2 ranks" in told
    assert not list(ROOT.glob("pretrain-*"))


def test_a_rank_that_is_killed_costs_no_turn_in_the_queue(slurm, alone, shard_set, tmp_path):
    """… and a cancelled job stays cancelled."""
    job = submit(slurm, tmp_path / "run", shard_set, LONG)
    wait_for_step(tmp_path / "run", 45)
    os.kill(slurm.hosts[1].ranks()[1], signal.SIGKILL)
    deadline = time.monotonic() + 120
    while "going on from there" not in (tmp_path / "run.log").read_text():
        assert time.monotonic() < deadline, (tmp_path / "run.log").read_text()
        time.sleep(0.2)
    wait_for_step(tmp_path / "run", 70)
    slurm.command("scancel", str(job))
    said = slurm.wait(job, "CANCELLED", "COMPLETED", "FAILED")
    assert said["JobState"] == "CANCELLED"
    time.sleep(3)
    assert slurm.job(job)["JobState"] == "CANCELLED"
    assert losses(tmp_path / "run") == alone[: len(losses(tmp_path / "run"))]
    assert len(losses(tmp_path / "run")) >= 70
