"""What users type: every command of the README, every YAML of configs/."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aar_dist.base.config import load
from aar_dist.recordings.layout import read_layout
from aar_dist.store.checkpoint import build_objective
from aar_dist.training.config import SCHEMA

ROOT = Path(__file__).parents[1]
TRAINING = [ROOT / "configs/quickstart.yaml", *sorted(ROOT.glob("configs/pretrain/*.yaml"))]
FEW_STEPS = "--train.max_steps 3 --data.mixture.oversampling_factor 0.1"


def environment() -> dict[str, str]:
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
    }


@pytest.mark.launch
def test_the_commands_of_the_readme_run_in_order(tmp_path):
    block = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    commands = [line for line in block.splitlines() if line]
    assert len(commands) >= 8
    for name in ("shards", "launch", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for command in commands:
        command += f" {FEW_STEPS}" if "launch/pretrain.py" in command else ""
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "run" / "finished").is_file()
    assert (tmp_path / "shard_set.png").stat().st_size > 10_000
    again = subprocess.run(commands[5], shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert again.returncode == 0
    assert "is finished" in again.stdout


@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.stem)
def test_training_configurations_load_and_build(path):
    config = load(SCHEMA, ["--config", str(path)])
    with torch.device("meta"):
        objective = build_objective(config.model, config.objective)
    assert sum(p.numel() for p in objective.parameters()) > 10_000


@pytest.mark.launch
@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.stem)
def test_training_configurations_run(path, shard_set, tmp_path):
    flags = f"--data.shards {shard_set} --out {tmp_path / 'run'} --train.max_steps 1 --batch_size 16"
    flags += " --data.segment_duration 1 --data.mixture.oversampling_factor 0.2 --tracking.mode disabled"
    command = f"deepspeed --num_accelerators 1 --master_port 29733 {ROOT}/launch/pretrain.py --config {path} {flags}"
    done = subprocess.run(command, shell=True, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "finished").is_file()


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/convert/*.yaml")), ids=lambda p: p.stem)
def test_table_descriptions_are_understood(path):
    assert read_layout(path).sensors


def test_the_readme_links_to_pages_that_exist():
    links = re.findall(r"\]\((docs/[\w./]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 5
    missing = [link for link in links if not (ROOT / link).exists()]
    assert missing == []
