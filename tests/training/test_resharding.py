"""Every ZeRO stage, with and without offload, goes on at the same number of ranks to the bit, and at another, or at
another stage, with the same segments in the same order and the same losses to rounding."""

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from launching import DEEPSPEED, ROOT, environment, free_port

from aar_dist.training.checkpoints import name_of
from aar_dist.training.resharding.source import Source

pytestmark = pytest.mark.launch

SCRIPT = ROOT / "tests" / "training" / "reshard_script.py"
SAVED_AT = 3
BF16_TOLERANCE = 5e-3
"""A resharded bf16 run adds up gradients in another order, and rounds them."""


@dataclass(frozen=True)
class Run:
    """A short run (see the script), or the rest of one."""

    ranks: int
    shape: str
    source: "Run | None" = None

    @property
    def name(self) -> str:
        own = f"{self.ranks}x{self.shape.replace(':', '_')}"
        return f"{own}_from_{self.source.name}" if self.source else own

    @property
    def text(self) -> str:
        return f"{self.name}={self.shape}" + (f"<{self.source.name}" if self.source else "")

    def then(self, ranks: int, shape: str | None = None) -> "Run":
        return Run(ranks, shape or self.shape, self)


def carry_out(runs: list[Run], out: Path, shards: Path) -> dict[Run, dict]:
    """What each run, and each that one goes on from, did; in as few launches as the order allows."""
    sources = {run.source for run in runs if run.source}
    waiting = [*sorted(sources, key=lambda run: (run.ranks, run.name)), *runs]
    done: list[Run] = []
    while waiting:
        now: list[Run] = []
        for run in waiting:
            if run.ranks == waiting[0].ranks and run.source in (None, *done, *now):
                now.append(run)
        launch(now[0].ranks, [run.text for run in now], out, shards)
        done += now
        waiting = [run for run in waiting if run not in done]
    return {run: json.loads((out / f"{run.name}.json").read_text()) for run in done}


def launch(ranks: int, texts: list[str], out: Path, shards: Path) -> None:
    launcher = [DEEPSPEED, "--num_accelerators", str(ranks), "--master_port", str(free_port())]
    command = [*(launcher if ranks > 1 else [sys.executable]), str(SCRIPT), str(out), str(shards), *texts]
    path = f"{ROOT}:{ROOT / 'tests'}"
    done = subprocess.run(
        command, env=environment(PYTHONPATH=path), cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr


def furthest(said: dict, base: dict, key: str = "loss") -> float:
    """Largest relative difference to the uninterrupted run, whose rest had the same segments in the same order."""
    rest = base["steps"][SAVED_AT:]
    assert len(rest) == len(said["steps"]) == 3
    assert [step["segments"] for step in said["steps"]] == [step["segments"] for step in rest]
    assert len(set(rest[0]["segments"])) == 24
    return max(abs(a[key] - b[key]) / abs(b[key]) for a, b in zip(said["steps"], rest, strict=True))


def check(run: Run, said: dict[Run, dict]) -> float:
    """Hold a run that went on against the one that was not interrupted; returns the largest relative difference."""
    told, base = said[run], said[run.source]
    assert told["carried"], f"{run.name}: its first checkpoint holds what it went on from, to the bit"
    assert told["finite"], run.name
    assert told["names"] == base["names"]
    if (run.ranks, run.shape) == (run.source.ranks, run.source.shape):
        assert not told["resharded"]
        assert told["steps"] == base["steps"][SAVED_AT:]
        assert told["weights"] == base["weights"]
    else:
        assert told["resharded"]
    far = furthest(told, base)
    if "b" in run.shape.split(":")[0]:
        return math.nan  # running statistics of a micro-batch depend on its size, and losses on them
    assert far < (1e-4 if "fp32" in run.shape and "fp32" in run.source.shape else BF16_TOLERANCE), run.name
    return far


TWO, ONE, FIRST = Run(2, "2:none:fp32"), Run(1, "2:none:fp32"), Run(2, "1:none:fp32")
DECAYED = Run(2, "1d:none:fp32").then(1, "3d:none:fp32")
FEW = [TWO.then(2), TWO.then(1), ONE.then(2), FIRST.then(2, "3s:all:fp32"), TWO.then(2, "0:none:bf16"), DECAYED]


@pytest.fixture(scope="module")
def few(tmp_path_factory, shard_set) -> tuple[Path, dict[Run, dict]]:
    """One of each kind."""
    out = tmp_path_factory.mktemp("few")
    return out, carry_out(FEW, out, shard_set)


@pytest.mark.parametrize("run", FEW, ids=lambda run: run.name)
def test_a_run_goes_on_elsewhere(few, run):
    check(run, few[1])


@pytest.mark.parametrize("run", [TWO, FEW[3], FEW[4]], ids=lambda run: run.name)
def test_weights_are_what_deepspeeds_own_reader_finds(few, run):
    folder = few[0] / run.name / "checkpoints"
    ours = Source(folder / name_of(6)).weights()
    if run.shape.startswith("0"):
        module = torch.load(folder / name_of(6) / "mp_rank_00_model_states.pt", weights_only=False)["module"]
        assert all(torch.equal(ours[name].bfloat16(), value) for name, value in module.items())
    else:
        theirs = get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=name_of(6))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert all(value.dtype == torch.float32 for value in ours.values())


ROWS = ["0:none", "1:none", "2:none", "3:none", "1:optimizer", "2:optimizer", "3:optimizer", "3:all"]
COLUMNS = {"same ranks": (2, 2), "2 -> 1": (2, 1), "1 -> 2": (1, 2), "2 -> 3": (2, 3)}
STAGES = [
    (2, "1:none", 2, "3:none"),
    (1, "1:none", 3, "3:none"),
    (2, "3:all", 1, "0:none"),
    (2, "0:none", 3, "2:optimizer"),
]
PECULIAR = ["2r", "3s", "1f", "2f", "3f", "0f", "0d", "1d", "2d", "3d", "0t", "2t", "3t", "0b", "1b", "3b"]


def cells() -> dict[tuple[str, str], Run]:
    """(row, column) -> the run that goes on."""
    made = {(row, name): Run(old, f"{row}:fp32").then(new) for row in ROWS for name, (old, new) in COLUMNS.items()}
    for old, one, new, other in STAGES:
        made[f"ZeRO {one} -> {other}", f"{old} -> {new}"] = Run(old, f"{one}:fp32").then(new, f"{other}:fp32")
    for kind in PECULIAR:
        made[kind, "2 -> 3"] = Run(2, f"{kind}:none:fp32").then(3)
        made[kind, "2 -> 1, other"] = Run(2, f"{kind}:none:fp32").then(
            1, f"{(int(kind[0]) + 2) % 4}{kind[1]}:none:fp32"
        )
    for stage in "0123":
        for precision in ("bf16", "autocast"):
            made[f"{stage} {precision}", "same ranks"] = Run(2, f"{stage}:none:{precision}").then(2)
            made[f"{stage} {precision}", "2 -> 3"] = Run(2, f"{stage}:none:{precision}").then(3)
        made[f"{stage} fp32 -> bf16", "2 -> 1"] = Run(2, f"{stage}:none:fp32").then(1, f"{stage}:none:bf16")
    return made


@pytest.mark.slow
def test_the_whole_table(tmp_path, shard_set, capsys):
    """Prints the largest relative difference of a loss in each cell."""
    runs = cells()
    said = carry_out(list(runs.values()), tmp_path, shard_set)
    far = {cell: check(run, said) for cell, run in runs.items()}
    with capsys.disabled():
        for (row, column), value in far.items():
            print(f"{row:28} {column:14} {value:.1e}")
    assert not [cell for cell in far if cell[1] == "same ranks" and far[cell]]
