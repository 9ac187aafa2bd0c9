"""How fast shards are built, against the physical limit and against other writers.

    python benchmarks/build.py --json out/build.json                  # peers too, where `make bench-peers` was run
    python benchmarks/build.py --mb 400 --rounds 3

The limit reads the bytes of the HDF5 files once, writes them once (onto the disk) and hashes them once, in a plain
loop. Ours does that and checks every value, takes statistics per chunk, and ends with a manifest. All in one run, round
by round, medians of MB of recordings a second; warm page cache, a folder of its own. Keys: ``limit``, ours with one
worker over the limit; ``workers_2``, two workers over one (Ray and its workers are started before: ``ray_start_s``);
``mds`` and ``litdata``, ours over theirs.
"""

import argparse
import hashlib
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from telling import keep

from aar_dist.base.jobs import Session, Workers, available_cores
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build_in

HERE = Path(__file__).parent
PEERS = HERE.parent / ".venv-peers" / "loaders" / "bin" / "python"
RATE_HZ, RECORDINGS, FRAME_BYTES = 100.0, 40, 12
OPTIONS = BuildOptions(datasets=("noise",))
WARM_JOBS, WARM_S = 8, 0.2


def record(root: Path, mb: int) -> Path:
    """Recordings of noise: 3 axes of float32."""
    rng, frames = np.random.default_rng(0), mb * 1_000_000 // FRAME_BYTES // RECORDINGS
    for i in range(RECORDINGS):
        values = rng.standard_normal((frames, 3), np.float32)
        acc = SensorData(values=values, rate_hz=RATE_HZ, units="g", axes=("x", "y", "z"))
        dataset_to_hdf5(root / "noise", dataset="noise", species="cow", subject=f"{i:03d}", sensors={"acc": acc})
    return root


def limit(root: Path, out: Path) -> None:
    """Read, write and hash every byte once."""
    digest = hashlib.sha256()
    with out.open("wb") as file:
        for path in sorted((root / "noise").iterdir()):
            with h5py.File(path, locking=False) as recording:
                data = recording["acc"][:].reshape(-1).view(np.uint8).data
            file.write(data)
            digest.update(data)
        file.flush()
        os.fsync(file.fileno())


def peer(name: str, root: Path, out: Path) -> float:
    """Seconds of another writer, in its own environment."""
    done = subprocess.run(
        [PEERS, HERE / "peers" / "write_shards.py", name, root / "noise", out], capture_output=True, text=True
    )
    told = re.search(r"^seconds ([\d.]+)$", done.stdout, re.MULTILINE)
    if told is None:
        raise SystemExit(f"error: {name}: {done.stderr.strip().splitlines()[-1:]}; run `make bench-peers`")
    return float(told[1])


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cleared(out: Path, seconds: float) -> float:
    """The next one finds the same memory and an idle disk."""
    shutil.rmtree(out)
    os.sync()
    out.mkdir()
    return seconds


def warm(_: int) -> None:
    """What a worker does first: import the builder."""
    import aar_dist.shards.writer  # noqa: F401

    time.sleep(WARM_S)  # long enough that every worker takes one


def measure(root: Path, work: Path, rounds: int, peers: list[str]) -> tuple[dict[str, list[float]], float]:
    """Seconds of each writer in every round, and of Ray's start."""
    took: dict[str, list[float]] = {name: [] for name in ("limit", "ours", "ours_2", *peers)}
    with Session(Workers(count=1)) as one, Session(Workers(count=2)) as two:
        start_s = seconds_of(lambda: two.run(warm, list(range(WARM_JOBS)))) - WARM_S * WARM_JOBS / 2
        out = work / "out"
        out.mkdir()
        writers: dict[str, Callable[[], float]] = {
            "limit": lambda: seconds_of(lambda: limit(root, out / "file")),
            "ours": lambda: seconds_of(lambda: build_in(one, root, out / "set", OPTIONS)),
            "ours_2": lambda: seconds_of(lambda: build_in(two, root, out / "set", OPTIONS)),
            **{name: partial(peer, name, root, out) for name in peers},
        }
        for k in range(rounds + 1):
            for name, write in writers.items():
                seconds = cleared(out, write())
                if k:  # the first round fills the page cache
                    took[name].append(seconds)
    return took, start_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1600, help="of recordings (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's folder for such files)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    peers = ["mds", "litdata"] if PEERS.exists() else []
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        took, start_s = measure(record(Path(name) / "recordings", args.mb), Path(name), args.rounds, peers)
    median = {name: statistics.median(seconds) for name, seconds in took.items()}
    result = {
        "limit": round(median["limit"] / median["ours"], 3),
        "workers_2": round(median["ours"] / median["ours_2"], 3),
        **{name: round(median[name] / median["ours"], 2) for name in peers},
        "mb_per_s": {name: round(args.mb / seconds) for name, seconds in median.items()},
        "seconds": {name: [round(s, 3) for s in seconds] for name, seconds in took.items()},
        "ray_start_s": round(start_s, 2),
        "mb": args.mb,
        "cores": available_cores(),
    }
    print(keep(result, args.json))


if __name__ == "__main__":
    main()
