"""Starting real launches from tests: two ranks on the CPU, a free port each, nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from aar_dist.training.metrics import read_rows
from aar_dist.training.ranks import free_port

ROOT = Path(__file__).parents[1]
DEEPSPEED = str(Path(sys.executable).with_name("deepspeed"))

# The first system's model, tiny: 101,376 parameters, on segments of one second.
TINY = {
    "data.segment_duration": 1.0,
    "data.max_window_length": 50,
    "data.lanes": 16,
    "data.mixture.oversampling_factor": 0.05,
    "model.patch_size": 5,
    "model.d_embedding": 64,
    "model.n_layers": 2,
    "train.batch_size": 32,
    "train.max_steps": 24,
    "train.val_every": 12,
    "train.save_every": 4,
    "train.log_every": 4,
    "train.pictures": 0,
    "optim.warmup_steps": 50,
    "tracking.mode": "disabled",
}


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    return kept | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", **more}


def flags(settings: dict) -> list[str]:
    return [f"--{key}={value}" for key, value in settings.items()]


def start(
    out: Path,
    shards: Path | str,
    settings: dict | None = None,
    *,
    ranks: int = 2,
    prefix: tuple[str, ...] = (),
    log_level: str = "info",
    own_group: bool = False,
    **env: str,
) -> subprocess.Popen:
    """A pretraining launch; its output, both streams together, is in ``.stdout``."""
    launcher = [DEEPSPEED, "--num_accelerators", str(ranks), "--master_port", str(free_port())]
    launcher += ["--log_level", log_level]
    command = [
        *prefix,
        *launcher,
        str(ROOT / "launch" / "pretrain.py"),
        "--out",
        str(out),
        "--data.shards",
        str(shards),
    ]
    return subprocess.Popen(
        [*command, *flags(TINY | (settings or {}))],
        cwd=ROOT,
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=own_group,
    )


def finish(process: subprocess.Popen, timeout_s: float = 180) -> tuple[int, str]:
    """Exit code and output without the launcher's own lines."""
    text, _ = process.communicate(timeout=timeout_s)
    lines = [line for line in text.splitlines() if not re.match(r"\[\d{4}-\d\d-\d\d .*\[(INFO|WARNING|ERROR)\]", line)]
    return process.returncode, "\n".join(lines)


def run(out: Path, shards: Path | str, settings: dict | None = None, **options) -> tuple[int, str]:
    return finish(start(out, shards, settings, **options))


def both_ranks(script: Path, out: Path, *arguments: Path | str) -> list[dict]:
    """What each of two ranks under the launcher writes to rank_<k>.json in ``out``, the script's first argument."""
    launcher = [DEEPSPEED, "--num_accelerators", "2", "--master_port", str(free_port())]
    command = [*launcher, *map(str, (script, out, *arguments))]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((out / f"rank_{rank}.json").read_text()) for rank in (0, 1)]


def group(script: Path, world: int, *arguments: Path | str) -> list[subprocess.Popen]:
    """Ranks without a launcher: ``script RANK WORLD PORT ARGUMENTS`` each."""
    rest = [str(world), str(free_port()), *map(str, arguments)]
    return [
        subprocess.Popen(
            [sys.executable, script, str(rank), *rest], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(world)
    ]


def ends(ranks: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Exit code, output and error output of each."""
    said = [rank.communicate(timeout=90) for rank in ranks]
    return [(rank.returncode, *text) for rank, text in zip(ranks, said, strict=True)]


def rank_process(out: Path, rank: int) -> int:
    """Process id of a rank of the launch that runs now."""
    text = (out / "log" / f"rank_{rank}.log").read_text()
    return int(re.findall(r"is process (\d+) on", text)[-1])


def wait_for_step(out: Path, step: int, *launches: subprocess.Popen) -> None:
    """Until a step is in metrics.jsonl; fails if one of the launches ends before."""
    deadline = time.monotonic() + 240
    while max((row["step"] for row in read_rows(out / "metrics.jsonl")), default=0) < step:
        for launch in launches:
            assert launch.poll() is None, launch.communicate()[0]
        assert time.monotonic() < deadline, "training does not get on"
        time.sleep(0.005)


def signal_at_step(process: subprocess.Popen, out: Path, step: int, rank: int | None, number: signal.Signals) -> None:
    """Send a signal to one rank, or to the launch's whole group, as soon as a step is in metrics.jsonl."""
    wait_for_step(out, step, process)
    if rank is None:
        os.killpg(process.pid, number)
    else:
        os.kill(rank_process(out, rank), number)


def losses(out: Path) -> list[tuple[int, float, float]]:
    """(step, loss, gradient norm) of every step."""
    return [(r["step"], r["loss"], r["grad_norm"]) for r in read_rows(out / "metrics.jsonl") if "loss" in r]


MEASURED = ("segments_per_s", "hours_per_s", "loader_share", "memory_gb", "mfu", "matmul_tflops")
"""What depends on the time of day."""


def numbers(out: Path) -> list[dict]:
    """Every row of metrics.jsonl without what was measured: that of a disturbed run equals an undisturbed one's."""
    rows = read_rows(out / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in MEASURED and not k.startswith("system/")} for row in rows]


def validations(out: Path) -> list[dict]:
    return [row for row in read_rows(out / "metrics.jsonl") if "val/loss" in row]
