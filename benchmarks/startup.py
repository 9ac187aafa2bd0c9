"""From the start of the process to the first batch, and memory, as a shard set grows a hundredfold.

    python benchmarks/startup.py --json startup.json          # 8 MB and 800 MB of float32 recordings
    python benchmarks/startup.py --json startup.json --small  # 0.1 MB and 14 MB: seconds

Each measurement is a process of its own that opens the set, takes the first batch of 512 segments of 10 s and nineteen
more, and tells what it holds then: ``own`` memory (anonymous: what would be missed elsewhere), ``shards`` (pages of the
page cache that its maps of the shards point to, which the kernel takes back when it needs them) and ``libraries``
(files of Python and torch), each as its share of the process (PSS). Rounds are interleaved, medians told. ``cold``: the
shards were dropped from the page cache before.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from telling import keep

RATE_HZ, GROWTH, BATCH, BATCHES = 100.0, 100, 512, 20
STATES = ("warm", "cold")
Figures = dict[str, Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--small", action="store_true", help="small sets, one round")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child)))
        return
    rounds, subjects, frames = (1, 1, 12_000) if args.small else (5, 4, 166_700)
    with tempfile.TemporaryDirectory() as folder:
        sets = {f"x{n}": make_set(Path(folder) / f"x{n}", subjects * n, frames) for n in (1, GROWTH)}
        found: dict[str, list[Figures]] = {f"{size} {state}": [] for size in sets for state in STATES}
        for _ in range(rounds):
            for size, shards in sets.items():
                for state in STATES:
                    found[f"{size} {state}"].append(measure(shards, cold=state == "cold"))
        figures: Figures = {"rounds": rounds, "batch": BATCH, "batches": BATCHES}
        figures |= {size: told(shards) for size, shards in sets.items()}
    for size in sets:
        figures[size] |= {state: medians(found[f"{size} {state}"]) for state in STATES}
    figures["growth"] = {
        "bytes": round(figures[f"x{GROWTH}"]["bytes"] / figures["x1"]["bytes"], 2),
        **{of: growth(figures, of) for of in ("first_batch_s", "after_imports_s", "own_bytes", "shards_bytes")},
    }
    print(keep(figures, args.json))


def make_set(root: Path, subjects: int, frames: int) -> Path:
    """A shard set of so many recordings of noise, in as many shards as the builder makes of it."""
    import numpy as np

    from aar_dist.recordings.write import SensorData, dataset_to_hdf5
    from aar_dist.shards.build import BuildOptions, build

    rng = np.random.default_rng(0)
    for subject in range(subjects):
        values = rng.standard_normal((frames, 3), np.float32)
        acc = SensorData(values=values, rate_hz=RATE_HZ, units="g", axes=("x", "y", "z"))
        name = f"{subject:04d}"
        dataset_to_hdf5(root / "hdf5" / "noise", dataset="noise", species="cow", subject=name, sensors={"acc": acc})
    options = BuildOptions(datasets=("noise",), train_ratio=1.0, longest_segment_s=10.0, shard_bytes=3_000_000)
    return build(root / "hdf5", root / "set", options, workers=1).folder


def told(shards: Path) -> Figures:
    """What the set is made of."""
    import pyarrow.parquet as pq

    tars = list(shards.glob("*.tar"))
    rows = pq.read_metadata(shards / "manifest.parquet").num_rows
    return {"bytes": sum(tar.stat().st_size for tar in tars), "shards": len(tars), "chunks": rows}


def measure(shards: Path, *, cold: bool) -> Figures:
    """One process over the set."""
    for tar in shards.glob("*.tar"):
        descriptor = os.open(tar, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED if cold else os.POSIX_FADV_WILLNEED)
        os.close(descriptor)
    command = [sys.executable, __file__, "--child", str(shards)]
    environment = os.environ | {"STARTED_AT": str(time.monotonic()), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: Figures = json.loads(done.stdout)
    return found


def child(shards: Path) -> Figures:
    """Seconds since the process was started, and bytes held after the last batch."""
    began = float(os.environ["STARTED_AT"])
    from aar_dist.stream.config import DataConfig
    from aar_dist.stream.loader import open_stream

    found = {"imports_s": time.monotonic() - began, "own_after_imports_bytes": held()["own_bytes"]}
    after = time.monotonic()
    with open_stream(DataConfig(shards=[str(shards)]), "train") as stream:
        found["open_s"] = time.monotonic() - after
        batches = stream.batches(0, BATCH, BATCH)
        next(batches)
        found["after_imports_s"] = time.monotonic() - after
        found["first_batch_s"] = found["imports_s"] + found["after_imports_s"]
        for _ in islice(batches, BATCHES - 1):
            pass
        return found | held()


def held() -> Figures:
    """This process's share of memory by kind, from the kernel's table of its maps."""
    total = {"own_bytes": 0, "shards_bytes": 0, "libraries_bytes": 0}
    kind = "own_bytes"
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            path = line.split(maxsplit=5)[5] if len(line.split()) > 5 else ""
            kind = "shards_bytes" if path.endswith(".tar") else "libraries_bytes" if path[:1] == "/" else "own_bytes"
        name, _, value = line.partition(":")
        if name in ("Pss", "Anonymous") and value:
            # Pages of a file that the process has written to are its own.
            n = 1024 * int(value.split()[0])
            total[kind] += n if name == "Pss" else 0
            if name == "Anonymous" and kind != "own_bytes":
                total[kind], total["own_bytes"] = total[kind] - n, total["own_bytes"] + n
    return total


def medians(found: list[Figures]) -> Figures:
    """The median of each figure."""
    return {name: round(statistics.median(one[name] for one in found), 4) for name in found[0]}


def growth(figures: Figures, of: str) -> float:
    """How many times as much for a hundred times the data, warm."""
    return round(figures[f"x{GROWTH}"]["warm"][of] / max(figures["x1"]["warm"][of], 1e-9), 3)


if __name__ == "__main__":
    main()
