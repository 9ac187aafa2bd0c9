"""A run directory as training leaves it: two data sets, three machines, a spike, steps left out, two launches."""

import json
import math
import random
from pathlib import Path

import numpy as np

from aar_dist.base.plots import reconstruction_figure, save_figure
from aar_dist.training import tracking

CONFIG = "data:\n  shards: [s3://me:hunter2@bucket/herd]\nstore: {name: aar}\ntracking: {init_timeout_s: 5.0}\n"


def watched_run(root: Path, steps: int = 400, *, hosts: int = 3) -> Path:
    """Make it."""
    (root / "pictures").mkdir(parents=True)
    (root / "config.yaml").write_text(CONFIG)
    about = {"world_size": 6, "val_every": 50, "total_steps": 2 * steps, "shards": []}
    first = tracking.begin(root, from_step=0, **about)
    tracking.NoTracker(root).alert(
        "Loss spike", f"step {steps // 2}: loss 3.1 is 9.2 standard deviations above", "warn"
    )
    tracking.Record(root).end_attempt(first.number, "failed")
    tracking.begin(root, from_step=steps // 2, **about)
    lines = [json.dumps(row) for step in range(steps + 1) for row in _rows(step, steps, hosts)]
    (root / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    time_s = np.linspace(0, 9, 180)
    values = np.sin(np.stack([time_s, 2 * time_s, 3 * time_s], 1))[None].repeat(2, 0)
    hidden = np.zeros(values.shape, bool)
    hidden[:, 40:80] = True
    figure = reconstruction_figure(
        values,
        0.8 * values,
        hidden,
        ~np.zeros_like(hidden),
        rate_hz=[20, 20],
        titles=["cow", "horse"],
        channels=["x", "y", "z"],
    )
    save_figure(figure, root / "pictures" / f"step_{steps:08d}.png")
    return root


def _rows(step: int, steps: int, hosts: int) -> list[dict]:
    noise = random.Random(step).gauss
    fall = 0.3 + 2 * math.exp(-step / 60)
    row = {
        "step": step,
        "loss": fall + noise(0, 0.03),
        "lr": min(step / 50, 1) * 1e-3,
        "grad_norm": 1 + abs(noise(0, 1)),
    }
    row |= {"loss/cow": fall * 0.8, "loss/horse": fall * 1.2, "skipped_steps": (step > 120) + (step > 260)}
    if step == steps // 2:
        row |= {"loss": 3.1, "spike": 9.2}
    if step % 10 == 0:
        row |= {
            "segments_per_s": 900 + noise(0, 40),
            "mfu": 0.41 + noise(0, 0.01),
            "loader_share": 0.02,
            "memory_gb": 3.2,
        }
        row |= {
            f"system/node-{k}/{what}": 60 + 5 * k + noise(0, 4)
            for k in range(hosts)
            for what in ("cpu", "memory", "gpu")
        }
    val = {"step": step, "val/loss": fall * 1.1, "val/loss/cow": fall, "val/loss/horse": fall * 1.3}
    val |= {"val/masked_mse": fall * 1.1, "val/interpolation_mse": 0.5}
    return [row, val] if step % 50 == 0 else [row] if step else []
