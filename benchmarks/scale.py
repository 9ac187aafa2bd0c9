"""How long a large shard set takes to open and to plan, and how much memory. Prints one JSON object.

    python benchmarks/scale.py                            # 10^6 chunks: 200 data sets, 10,000 shards
    python benchmarks/scale.py --chunks 10000000 --json scale.json

Each round is a fresh process; imports are told apart. ``open`` reads the manifest and chooses, ``plan`` makes the
tape's first epoch and the segments of the first 32 global batches; ``at_99`` the same in another fresh process whose
run resumes at 99 % of its third epoch. Memory is the highest of the whole process, imports included; its files may be
in the page cache, which is not counted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from telling import keep

PLAN_BATCHES, BATCH_SIZE, WORLD = 32, 512, 8
WANTED = {1_000_000: (2.0, 500), 10_000_000: (60.0, 4000)}
"""Chunks -> seconds and megabytes that are allowed for them."""


def memory_mb(what: str) -> float:
    """VmRSS (now) or VmHWM (the highest so far) of this process [MB]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def once(folder: str, epoch: float) -> dict[str, float]:
    """One round, in this process."""
    began = time.perf_counter()
    from aar_dist.stream.config import DataConfig
    from aar_dist.stream.loader import open_tape
    from aar_dist.stream.source import open_source

    imported, at_import = time.perf_counter(), memory_mb("VmRSS")
    data = DataConfig(shards=[folder])
    source = open_source(data, "train")
    opened = time.perf_counter()
    tape = open_tape(source, data, "train")
    positions = tape.batches(int(epoch * tape.n_segments), BATCH_SIZE, PLAN_BATCHES)
    refs = tape.segments_at(positions[:, : BATCH_SIZE // WORLD])
    planned = time.perf_counter()
    return {
        "import_s": imported - began,
        "open_s": opened - imported,
        "plan_s": planned - opened,
        "import_mb": at_import,
        "peak_mb": memory_mb("VmHWM"),
        "items": len(source.items.dataset),
        "shards": len(source.shards),
        "segments": tape.n_segments,
        "planned": refs.item.size,
    }


def rounds(folder: Path, n: int, epoch: float) -> dict[str, float]:
    """Medians of n fresh processes; the most memory of any."""
    command = [sys.executable, __file__, "--once", str(folder), "--epoch", str(epoch)]
    found = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(n)]
    middle = {key: round(statistics.median(one[key] for one in found), 3) for key in found[0]}
    return middle | {"peak_mb": round(max(one["peak_mb"] for one in found))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--set", type=Path, help="a shard set there is (default: one is made up)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    parser.add_argument("--epoch", type=float, default=0.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        print(json.dumps(once(args.once, args.epoch)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.set
        if folder is None:
            from manifests import Made, make

            folder = make(Path(scratch) / "set", Made(chunks=args.chunks, train_ratio=1.0))
        start, late = (rounds(folder, args.rounds, epoch) for epoch in (0.0, 2.99))
    seconds = start["open_s"] + start["plan_s"]
    wanted_s, wanted_mb = WANTED[min((n for n in WANTED if n >= args.chunks), default=max(WANTED))]
    result = {
        "chunks": args.chunks,
        **start,
        "seconds": round(seconds, 3),
        "at_99": round(late["plan_s"] / start["plan_s"], 3),
        "wanted_s": wanted_s,
        "wanted_mb": wanted_mb,
        "reached": seconds < wanted_s and start["peak_mb"] < wanted_mb,
    }
    print(keep(result, args.json))


if __name__ == "__main__":
    main()
