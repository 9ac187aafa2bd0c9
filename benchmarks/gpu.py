"""How fast aar base, 100 M and 1 B train on one GPU in bf16, against plain PyTorch. Eight minutes at most.

    python benchmarks/gpu.py --json gpu.json                              # needs nothing but this repository
    python benchmarks/gpu.py --json gpu.json --page docs/performance.md   # puts the table there, with date and device
    python benchmarks/gpu.py --json gpu.json --small                      # toys, on a CPU too: nothing to quote

Ours: the training loop's step under DeepSpeed, fed by the host and by shards that are resident on the device. Plain:
torch's own encoder (benchmarks/peers/train_plain.py) under autocast over arrays padded to 1000 samples, on the host and
on the device. Segments of 10 s, all at 100 Hz, and half at 25 Hz. MFU counts the operations of what was recorded, for
both sides. Each side of each size is a process with a budget of its own, and a batch that does not fit is halved; what
fails is told, and the others go on.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_part import OUT_OF_MEMORY
from peer import ROOT
from telling import keep, put, say
from train import Sizes, settings_of

PRETRAIN = ROOT / "configs" / "pretrain"
DATA = ("100 Hz", "mixed")
TOY = ("--d_embedding=64", "--n_layers=1")
Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """How much is measured, and for how long."""

    batches: dict[str, int]
    """Recipe -> segments of a step; all at once."""
    seconds: float
    """Of each measurement."""
    total_s: float
    """Of all together: what is not measured by then is left out."""
    corpus: Sizes
    """Recordings, and an eighth of the padded arrays as ``batch``."""
    flags: tuple[str, ...] = ()


FULL = Run({"aar": 2048, "aar_100m": 256, "aar_1b": 64}, 5.0, 450.0, Sizes(batch=512, recordings=8, seconds=1800))
SMALL = Run(dict.fromkeys(FULL.batches, 4), 0.05, 300.0, Sizes(batch=8, recordings=2, seconds=30), TOY)


def main() -> None:
    """Measure, print, write."""
    args = arguments()
    run, on_gpu = SMALL if args.small else FULL, torch.cuda.is_available()
    if not on_gpu and not args.small:
        sys.exit("error: no GPU here; --small runs the same code with toys")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        say("recordings, shards and padded arrays are made")
        made = settings_of(Path(folder), run.corpus)
        chosen = {kind: {name: made[kind][name] for name in DATA} for kind in ("shards", "arrays")}
        rows = measure(run, args.sizes or list(run.batches), chosen, began + run.total_s)
    told = {
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu ({platform.machine()})",
        "note": "" if on_gpu else "no GPU here: toys on a CPU, nothing to quote",
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "took_s": round(time.monotonic() - began, 1),
        "results": rated([row for row in rows if "failed" not in row]),
        "failed": [row for row in rows if "failed" in row],
    }
    print(keep(told, args.json))
    if args.page:
        put(page(told), args.page, "gpu")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--page", type=Path, help="put the table between the marks of this page (docs/performance.md)")
    parser.add_argument("--sizes", nargs="+", choices=FULL.batches, help="recipes of configs/pretrain; default: all")
    parser.add_argument("--small", action="store_true", help="toys: shows that it works")
    return parser.parse_args()


def measure(run: Run, sizes: list[str], data: dict[str, Any], until: float) -> list[Row]:
    """A row for each thing measured or failed; the time that is left is shared among the parts that are left."""
    parts = [(size, side) for size in sizes for side in ("ours", "plain")]
    rows: list[Row] = []
    for i, (size, side) in enumerate(parts):
        config = str(PRETRAIN / f"{size}.yaml")
        settings = data | {"size": size, "side": side, "config": config, "seconds": run.seconds, "flags": run.flags}
        rows += part(settings, run.batches[size], time.monotonic() + (until - time.monotonic()) / (len(parts) - i))
    return rows


def part(settings: dict[str, Any], batch: int, until: float) -> list[Row]:
    """One side of one size; a batch that does not fit is halved."""
    who = {key: settings[key] for key in ("size", "side")}
    while batch:
        say(f"{who['size']}, {who['side']}, {batch} segments at once, {until - time.monotonic():.0f} s at most")
        rows, code, said = started(settings | {"batch": batch}, until - time.monotonic())
        if code != OUT_OF_MEMORY:
            return rows if code == 0 else [*rows, who | {"batch": batch, "failed": said}]
        batch //= 2
    return [who | {"failed": "out of memory with a single segment"}]


def started(settings: dict[str, Any], limit_s: float) -> tuple[list[Row], int, str]:
    """Run a part: its rows, exit code, and the last line of its errors."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("gpu_part.py")), json.dumps(settings)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env, cwd=ROOT)
        try:
            code = process.wait(max(1.0, limit_s))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = -1
        out.seek(0)
        err.seek(0)
        rows = [json.loads(line) for line in out if line.startswith('{"side"') and line.endswith("}\n")]
        last = "out of time" if code == -1 else next(reversed(err.read().strip().splitlines()), f"exit code {code}")
    return rows, code, last


def rated(rows: list[Row]) -> list[Row]:
    """The plain sides with their MFU, by the operations of a segment that ours told, and ours with what they are of
    the plain loop."""
    ours = {(row["size"], row["data"]): row for row in rows if row["side"] == "ours"}
    plain = {(row["size"], row["data"], row["feed"]): row for row in rows if row["side"] == "plain"}
    found = []
    for row in rows:
        beside = ours.get((row["size"], row["data"]))
        if row["side"] == "plain" and beside:
            mfu = beside["mfu"] * row["segments_per_s"] / beside["segments_per_s"]
            row = row | {"mfu": mfu, "matmul_tflops": beside["matmul_tflops"]}
        against = plain.get((row["size"], row["data"], row["feed"]))
        if row["side"] == "ours" and against:
            row = row | {"of_plain": row["segments_per_s"] / against["segments_per_s"]}
        found.append(row)
    return found


def page(told: dict[str, Any]) -> str:
    """Markdown: device and date, then a line for each size and data set."""
    head = ["model", "data", "batch", "fed by", "segments/s", "MFU", "loader", "plain, segments/s", "MFU", "ratio"]
    lines = [
        f"{told['device']}, {told['date']}, torch {told['torch']}, bf16; {told['took_s']:.0f} s in all.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
    ]
    plain = {(r["size"], r["data"], r["feed"]): r for r in told["results"] if r["side"] == "plain"}
    for row in (r for r in told["results"] if r["side"] == "ours"):
        against = plain.get((row["size"], row["data"], row["feed"]), {})
        cells = [row["size"], row["data"], f"{row['batch']}", row["feed"], *speeds(row), f"{row['loader_share']:.1%}"]
        cells += [*speeds(against), f"{row['of_plain']:.2f}" if "of_plain" in row else "–"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *(f"\nFailed: {row}" for row in told["failed"])])


def speeds(row: Row) -> list[str]:
    """Segments a second and MFU."""
    return [f"{row['segments_per_s']:,.0f}", f"{row['mfu']:.1%}"] if "mfu" in row else ["–", "–"]


if __name__ == "__main__":
    main()
