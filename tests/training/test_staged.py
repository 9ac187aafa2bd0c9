"""Staged unfreezing in whole runs: what moves in each phase, what each engine begins with, killed and resumed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_toys import QUICK, make_shards, publish_backbone
from launching import DEEPSPEED, ROOT, environment, finish, flags, free_port, losses, signal_at_step, validations
from staged_script import ended_after

from aar_dist.base.storage import sha256
from aar_dist.store.checkpoint import WEIGHTS
from aar_dist.store.registry import resolve
from aar_dist.training.checkpoints import complete, name_of, read
from aar_dist.training.metrics import read_rows
from aar_dist.training.resharding.source import Source

pytestmark = pytest.mark.launch

SCRIPT = ROOT / "tests" / "training" / "staged_script.py"
STAGED = (
    {"config": ROOT / "configs" / "adapt" / "staged.yaml"}
    | QUICK
    | {
        "train.batch_size": 32,
        "train.epochs": 3,
        "head_only_epochs": 1,
        "unfreeze_last_n": 1,
        "full_finetune_epochs": 1,
        "split.test": "toy/s0",
        "init_from": "store://toy@1",
    }
)
"""An epoch of the head, two of the last layer, one of everything."""
PATIENCE_S = 900
EPOCH = 15  # steps: 480 windows of four subjects
HEAD = {"head.linear.weight", "head.linear.bias"}
STAGES = ["head only", "head and last block", "all layers"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("toys")
    publish_backbone(root / "store")
    return STAGED | {"data.shards": make_shards(root), "store.path": root / "store"}


def carry_out(out: Path, settings: dict, *runs: str, ranks: int = 1) -> None:
    """Runs of staged_script.py, one after the other."""
    launcher = [DEEPSPEED, "--num_accelerators", str(ranks), "--master_port", str(free_port())]
    command = [*(launcher if ranks > 1 else [sys.executable]), str(SCRIPT), str(out), *flags(settings), *runs]
    path = f"{ROOT}:{ROOT / 'tests'}"
    done = subprocess.run(
        command, env=environment(PYTHONPATH=path), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr


def borders(out: Path) -> list[int]:
    """The last step of each phase, by metrics.jsonl."""
    phase = {row["step"]: row["phase"] for row in read_rows(out / "metrics.jsonl") if "loss" in row}
    return [max(step for step, number in phase.items() if number == wanted) for wanted in (1, 2, 3)]


def moved(before: dict, after: dict) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def check_what_moved(out: Path, settings: dict) -> None:
    """Every engine began with what was published or saved, to the bit, and moved what its stage moves."""
    published = resolve("store://toy@1", settings["store.path"]).weights()
    begun = [torch.load(out.with_name(f"{out.name}_{k}.pt")) for k in (1, 2, 3)]
    assert not out.with_name(f"{out.name}_4.pt").exists()
    of_backbone = {name for name in published if name.startswith("backbone.")}
    assert {name for name in of_backbone if torch.equal(begun[0][name], published[name])} == of_backbone
    saved = {read(path).step: path for path in complete(out / "checkpoints")}
    ends = [begun[0] | Source(saved[step]).weights() for step in borders(out)]
    assert [read(saved[step]).progress.phase for step in borders(out)] == [0, 1, 2]
    assert not moved(ends[0], begun[1])
    assert not moved(ends[1], begun[2])
    last = {name for name in begun[0] if name.startswith("backbone.layers.1.")}
    stages = [moved(before, after) for before, after in zip(begun, ends, strict=True)]
    assert stages == [HEAD, HEAD | last, set(begun[0])]


@pytest.fixture(scope="module")
def resumed(settings, tmp_path_factory) -> Path:
    """``whole`` is a run; ``middle`` and ``border`` went on from its checkpoints in the middle and at the end of its
    second phase, ``stopped`` from that end before it was validated; all in one process."""
    out = tmp_path_factory.mktemp("resumed")
    more = settings | {"train.keep_every": EPOCH, "deepspeed.zero_stage": 2, "deepspeed.precision": "bf16"}
    border = 3 * EPOCH
    carry_out(out, more, "whole", f"middle<whole@{2 * EPOCH}", f"border<whole@{border}", f"stopped<whole@{border}!")
    return out


def test_what_moves_in_each_stage(resumed, settings):
    assert borders(resumed / "whole") == [EPOCH, 3 * EPOCH, 4 * EPOCH]
    check_what_moved(resumed / "whole", settings)


def test_a_run_goes_on_in_the_phase_where_it_stood(resumed, settings):
    assert len(list(resumed.glob("middle_*.pt"))) == 2, "the rest of the second phase, and the third"
    assert len(list(resumed.glob("border_*.pt"))) == 1, "the third phase alone"
    assert read(resumed / "stopped" / "checkpoints" / name_of(3 * EPOCH)).val_loss is not None
    versions = {name: resumed_weights(settings, name) for name in ("whole", "middle", "border", "stopped")}
    for name in ("middle", "border", "stopped"):
        assert losses(resumed / name) == losses(resumed / "whole")
        assert validations(resumed / name) == validations(resumed / "whole")
        assert versions[name] == versions["whole"]
        assert np.array_equal(*(np.load(resumed / n / "y_prob_fold_0.npy") for n in (name, "whole")))


def test_a_run_does_not_go_on_in_another_phase(resumed, settings, tmp_path):
    """It stood in the second of three: with one epoch there is no such phase, and all layers would take its place."""
    ended_after(2 * EPOCH, resumed / "whole", tmp_path / "run", validated=True)
    more = {"deepspeed.zero_stage": 2, "deepspeed.precision": "bf16", "train.epochs": 1, "train.keep_every": EPOCH}
    command = [sys.executable, str(ROOT / "launch" / "finetune.py"), "--out", str(tmp_path / "run")]
    command += flags(settings | more | {"store.name": "whole"})
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "in phase 2, head and last block; now the phases are head only, all layers. Resume" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def resumed_weights(settings: dict, name: str) -> str:
    return sha256(resolve(f"store://{name}@1", settings["store.path"]).path / WEIGHTS)


def test_the_stages_are_told(resumed, settings):
    made = json.loads((resumed / "whole" / "training_history.json").read_text())
    assert list(dict.fromkeys(made["stage"])) == STAGES
    assert made["stage"].count(STAGES[0]) == 1
    assert len(made["step"]) == len(made["train_loss"]) == len(made["val_accuracy"])
    rows = [row for row in read_rows(resumed / "whole" / "metrics.jsonl") if "lr" in row]
    assert {row["phase"]: row["lr"] for row in rows} == {1: 1e-3, 2: 1e-3, 3: pytest.approx(1e-4)}
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    told = json.loads((resumed / "whole" / "metrics.json").read_text())
    assert told["adapted"].startswith("head only (579 parameters move) for 1 epoch, then head and last block (")
    assert told["best_phase"] in STAGES
    card = resolve("store://whole@1", settings["store.path"]).path / "card.md"
    assert f"trained: {told['adapted']}" in card.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_moves_at_every_zero_stage_on_two_ranks(settings, tmp_path, precision):
    more = settings | {"train.keep_every": EPOCH, "deepspeed.precision": precision}
    carry_out(tmp_path, more, *(f"z{n}=--deepspeed.zero_stage={n}" for n in range(4)), ranks=2)
    for n in range(4):
        check_what_moved(tmp_path / f"z{n}", settings)
    assert len({tuple(borders(tmp_path / f"z{n}")) for n in range(4)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_killed_in_the_middle_of_the_second_stage_and_resumed(settings, tmp_path, stage):
    settings |= {"deepspeed.zero_stage": stage, "train.epochs": 9, "head_only_epochs": 3}
    whole, broken = tmp_path / f"whole{stage}", tmp_path / f"broken{stage}"
    code, said = finish(launch(whole, settings), PATIENCE_S)
    assert code == 0, said
    first, second, _ = borders(whole)
    process = launch(broken, settings)
    signal_at_step(process, broken, (first + second) // 2 + 1, rank=1, number=signal.SIGKILL)
    assert finish(process, PATIENCE_S)[0] != 0
    assert not (broken / "finished").exists()
    code, said = finish(launch(broken, settings), PATIENCE_S)
    assert code == 0, said
    assert "goes on from step" in said
    assert losses(broken) == losses(whole)
    assert validations(broken) == validations(whole)
    assert resumed_weights(settings, broken.name) == resumed_weights(settings, whole.name)


def launch(out: Path, settings: dict) -> subprocess.Popen:
    """On two ranks."""
    command = [DEEPSPEED, "--num_accelerators", "2", "--master_port", str(free_port())]
    command += [str(ROOT / "launch" / "finetune.py"), "--out", str(out), *flags(settings | {"store.name": out.name})]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_adapters_and_layer_decay_at_every_zero_stage(settings, tmp_path):
    """What is published has the architecture it started from; only what was adapted differs."""
    ways = {"lora": "--adapt=lora --rank=4", "decay": "--adapt=layer_decay"}
    own = {"head_only_epochs", "unfreeze_last_n", "full_finetune_epochs", "config"}
    shared = {key: value for key, value in settings.items() if key not in own}
    runs = [f"{way}{n}={flag} --deepspeed.zero_stage={n}" for way, flag in ways.items() for n in range(4)]
    carry_out(tmp_path, shared, *runs, ranks=2)
    published = resolve("store://toy@1", settings["store.path"]).weights()
    backbone = {name for name in published if name.startswith("backbone.")}
    adapted = {
        n for n in backbone if n.endswith(("qkv.weight", "out.weight", "feedforward.0.weight", "feedforward.3.weight"))
    }
    for n in range(4):
        lora, decay = (resolve(f"store://{way}{n}@1", settings["store.path"]).weights() for way in ways)
        assert set(lora) == set(decay) == backbone | HEAD
        assert {name for name in backbone if not torch.equal(lora[name], published[name])} == adapted
        assert {name for name in backbone if not torch.equal(decay[name], published[name])} == backbone
        assert json.loads((tmp_path / f"lora{n}" / "metrics.json").read_text())["balanced_accuracy"] > 0.4
