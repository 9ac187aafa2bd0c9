"""What users type: every command of the README, every YAML of configs/, and the clean clone of .ci/run."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from finetune_toys import make_shards, publish_backbone

from aar_dist.base.config import load
from aar_dist.evaluation.study import open_study
from aar_dist.recordings.layout import read_layout
from aar_dist.store.checkpoint import build_objective
from aar_dist.training.config import SCHEMA

ROOT = Path(__file__).parents[1]
HEART = ("troika", "but_ppg")
"""Recipes of PPG and ECG; tests/training/test_inflated_runs.py runs them."""
PRETRAINING, FINETUNING = (
    sorted(path for path in ROOT.glob(f"configs/{kind}/*.yaml") if path.stem not in HEART)
    for kind in ("pretrain", "finetune")
)
TRAINING = [ROOT / "configs/quickstart.yaml", *PRETRAINING]
LARGE = {"aar_100m": 10**8, "aar_1b": 10**9}
"""Recipes that no test can run as they are, and about how many parameters they have."""
FEW_FOLDS = "--train.max_steps 3 --n_folds 2 --baselines majority --probes none"
FEW_STEPS = "--train.max_steps 3 --data.mixture.oversampling_factor 0.1"


def environment() -> dict[str, str]:
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
    }


def on_a_free_port(command: str) -> str:
    """The command with a port of its own for the launcher, so that two launches on one machine do not meet."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return re.sub(r"\bdeepspeed ", f"deepspeed --master_port {s.getsockname()[1]} ", command, count=1)


def test_every_launch_here_has_a_port_of_its_own():
    block = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    launches = [on_a_free_port(line) for line in block.splitlines() if "launch/pretrain.py" in line]
    assert len(launches) == 1
    assert re.search(r"deepspeed --master_port \d+ --num_accelerators 2 launch/", launches[0])
    assert on_a_free_port("aar-dist inspect run") == "aar-dist inspect run"
    assert not re.search(r"master_port \d", Path(__file__).read_text())


@pytest.mark.launch
def test_the_commands_of_the_readme_run_in_order(tmp_path):
    block = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    commands = [on_a_free_port(line) for line in block.splitlines() if line]
    assert len(commands) >= 8
    for name in ("shards", "launch", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for command in commands:
        command += f" {FEW_STEPS}" if "launch/pretrain.py" in command else ""
        command += f" {FEW_FOLDS}" if "launch/folds.py" in command else ""
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "run" / "finished").is_file()
    assert (tmp_path / "shard_set.png").stat().st_size > 10_000
    (pretrain,) = (command for command in commands if "launch/pretrain.py" in command)
    again = subprocess.run(pretrain, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert again.returncode == 0
    assert "is finished" in again.stdout


@pytest.mark.parametrize("path", [*TRAINING, ROOT / "configs/pretrain/troika.yaml"], ids=lambda p: p.stem)
def test_training_configurations_load_and_build(path):
    config = load(SCHEMA, ["--config", str(path)])
    with torch.device("meta"):
        objective = build_objective(config.model, config.objective)
    n_parameters = sum(p.numel() for p in objective.parameters())
    assert n_parameters == pytest.approx(LARGE[path.stem], rel=0.01) if path.stem in LARGE else n_parameters > 10_000


@pytest.mark.launch
@pytest.mark.parametrize("name", LARGE)
def test_large_recipes_run_at_toy_size(name, shard_set, tmp_path):
    """Alone, without a launcher: the others below are launched."""
    flags = f"--data.shards={shard_set} --out={tmp_path / 'run'} --train.max_steps=1 --batch_size=16 --d_embedding=64"
    flags += " --micro_batch_size=8 --n_layers=2 --data.segment_duration=1 --data.mixture.oversampling_factor=0.2"
    flags += f" --tracking.mode=disabled --activation_checkpointing={str(name == 'aar_1b').lower()} --log_every=1"
    command = f"{sys.executable} {ROOT}/launch/pretrain.py --config={ROOT}/configs/pretrain/{name}.yaml {flags}"
    done = subprocess.run(command.split(), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"step 1/1 .* mfu \d+%  loader \d+%", done.stdout)
    assert (tmp_path / "run" / "finished").is_file()


@pytest.mark.launch
@pytest.mark.parametrize("path", [p for p in TRAINING if p.stem not in LARGE], ids=lambda p: p.stem)
def test_training_configurations_run(path, shard_set, tmp_path):
    flags = f"--data.shards {shard_set} --out {tmp_path / 'run'} --train.max_steps 1 --batch_size 16"
    flags += " --data.segment_duration 1 --data.mixture.oversampling_factor 0.2 --tracking.mode disabled"
    command = on_a_free_port(f"deepspeed --num_accelerators 1 {ROOT}/launch/pretrain.py --config {path} {flags}")
    done = subprocess.run(command, shell=True, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "finished").is_file()


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> list[str]:
    """Flags for a labelled shard set and a stored model to start from, in place of what a recipe names."""
    root = tmp_path_factory.mktemp("toys")
    backbone = publish_backbone(root / "store").path
    windows = ["--windows.datasets=toy", '--windows.classes=["rest", "walk", "run"]', "--data.segment_duration=1"]
    return [f"--data.shards={make_shards(root)}", f"--init_from={backbone}", f"--store.path={root / 'store'}", *windows]


@pytest.mark.launch
@pytest.mark.parametrize("path", FINETUNING, ids=lambda p: p.stem)
def test_finetuning_configurations_run(path, toys, tmp_path):
    flags = [f"--config={path}", *toys, f"--out={tmp_path / 'run'}", "--split.test=toy/s0", "--train.max_steps=1"]
    command = [sys.executable, ROOT / "launch/finetune.py", *flags, "--tracking.mode=disabled"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "metrics.json").is_file()


@pytest.mark.parametrize("path", FINETUNING, ids=lambda p: p.stem)
def test_the_folds_of_a_recipe_are_understood(path, toys, tmp_path):
    study = open_study([f"--config={path}", *toys, f"--out={tmp_path / 'folds'}", "--n_folds=2"])
    assert {job.kind for job in study.jobs()} == {"network", "baseline", "probe"}


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/convert/*.yaml")), ids=lambda p: p.stem)
def test_table_descriptions_are_understood(path):
    assert read_layout(path).sensors


def test_the_readme_links_to_pages_that_exist():
    links = re.findall(r"\]\((docs/[\w./]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 5
    missing = [link for link in links if not (ROOT / link).exists()]
    assert missing == []


MAKE = """#!/bin/sh
echo "$1 $PWD $SHARED_DATA $(ls)" >> "$SAID"
[ "$1" != "$FAILS" ]
"""


@pytest.mark.parametrize("fails", ["nothing", "test"])
def test_the_automatic_check_is_of_a_clean_clone(tmp_path, fails):
    checkout, scratch, programs = (tmp_path / name for name in ("checkout", "scratch", "programs"))
    data = tmp_path / "shared/data"
    for folder in (checkout / ".ci", scratch, programs, data):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", checkout / ".ci/run")
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *arguments], cwd=checkout, check=True)
    (checkout / "forgotten.py").touch()
    (programs / "make").write_text(MAKE)
    (programs / "make").chmod(0o755)
    own = {"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(scratch), "SAID": str(tmp_path / "said")}
    env = {name: value for name, value in os.environ.items() if name != "SHARED_DATA"} | own | {"FAILS": fails}
    done = subprocess.run([checkout / ".ci/run"], env=env, capture_output=True, text=True)
    said = [line.split() for line in (tmp_path / "said").read_text().splitlines()]
    assert [line[0] for line in said] == ["check", "test", "quickstart"][: 2 if fails == "test" else 3]
    assert (done.returncode == 0) == (fails == "nothing"), done.stderr
    for _, place, shared, *files in said:
        assert Path(place).is_relative_to(scratch)
        assert shared == str(data)
        assert files == []
    assert list(scratch.iterdir()) == []
