"""Folds on a SLURM of two nodes, by Ray."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from finetune_toys import FOLDS, make_shards, publish_backbone
from launching import ROOT, environment, flags

pytestmark = [pytest.mark.launch, pytest.mark.slow]

SETTINGS = FOLDS | {"init_from": "store://toy@1", "cross_validation.n_kernels": 100}


def hashes(out: Path) -> dict:
    """The sha256 of every prediction."""
    found: dict = json.loads((out / "results.json").read_text())["hashes"]
    return found


def test_folds_on_two_nodes_are_those_of_one_machine(slurm, tmp_path):
    """… also when the job is stopped on the way and goes on in another turn."""
    shards = make_shards(tmp_path)
    publish_backbone(tmp_path / "store", name="toy")
    where = {"SHARDS": shards, "STORE": tmp_path / "store", "OUT": tmp_path / "two", "VENV": sys.prefix}
    env = environment(CONFIG="configs/finetune/quickstart.yaml", **{name: str(value) for name, value in where.items()})
    nodes = ["--nodes=2", "--gpus-per-node=0", "--cpus-per-task=1", f"--output={tmp_path}/job.log"]
    job = slurm.submit([*nodes, "launch/slurm/folds.sbatch", *flags(SETTINGS)], cwd=ROOT, env=env)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "two").glob("runs/pretrained/*/fold_*/metrics.json")):
        assert time.monotonic() < deadline, (tmp_path / "job.log").read_text()
        time.sleep(0.2)
    slurm.command("scancel", "--batch", "--signal=USR1", str(job))
    said = slurm.wait(job, "COMPLETED", "FAILED", "TIMEOUT")
    log = (tmp_path / "job.log").read_text()
    assert (said["JobState"], said["Restarts"]) == ("COMPLETED", "1"), log
    logs = (tmp_path / "two").glob("runs/*/*/*/log/rank_0.log")
    assert {re.search(r"is process \d+ on (\w+)", log.read_text())[1] for log in logs} == {"host1", "host2"}

    command = [
        sys.executable,
        "launch/folds.py",
        "--config",
        "configs/finetune/quickstart.yaml",
        "--data.shards",
        shards,
    ]
    command += ["--store.path", tmp_path / "store", "--out", tmp_path / "one", *flags(SETTINGS | {"store.name": "one"})]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
    assert hashes(tmp_path / "two") == hashes(tmp_path / "one")
