"""How fast a model is trained on a CPU, against the plain ways of doing so, in one run.

    python benchmarks/train.py --json train.json           # four minutes; both cores should be free
    python benchmarks/train.py --json train.json --small   # a toy: shows that it works, measures nothing
    python benchmarks/train.py --page docs/performance.md
    make bench-peers                                       # beforehand: Hugging Face's PatchTST, in .venv-peers/models

One model (d 128, 4 layers, 3 axes of 40 patches of 25 samples) and the same segments of 10 s for everybody: at 100 Hz,
half at 25 Hz, all at 25 Hz. Plain: torch's encoder over arrays in memory, each segment padded to 1000 samples. Ours:
the stream over shards and the training loop's step under DeepSpeed; *as it comes* with the defaults of
configs/pretrain/aar.yaml. Each side is a process of its own, on one core with one thread; trainers take turns in
rounds. Told are medians of segments per CPU-second (of all threads of a process); of ranks, a core each, the best
round's segments per second.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peer import MODELS, ROOT, Peer, available
from telling import keep, put, say
from train_report import DATA, Rates, like, ratios, table

from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import open_stream
from aar_dist.training.ranks import free_port

RATES_HZ = {"hz100": 100.0, "hz25": 25.0}
SETS = dict(zip(DATA, (("hz100",), ("hz100", "hz25"), ("hz25",)), strict=True))
WINDOW, AXES, CORE, N_RANKS = 1000, 3, 1, 2
ALONE, TEAM = "one rank", "the ranks together"
Measure = Callable[[], float]


@dataclass(frozen=True)
class Sizes:
    """How much is trained."""

    d: int = 128
    n_layers: int = 4
    batch: int = 128
    recordings: int = 8
    seconds: int = 600
    """Of each recording."""
    slice_s: float = 1.0
    rounds: int = 5


SMALL = Sizes(d=64, n_layers=1, batch=8, recordings=2, seconds=30, slice_s=0.01, rounds=1)


def main() -> None:
    """Measure, print, write."""
    args = arguments()
    sizes = SMALL if args.small else Sizes()
    peers = available(MODELS) and not args.no_peers
    if not peers:
        say("without PatchTST" + ("" if args.no_peers else " (make bench-peers installs it)"))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        rates = measure(settings_of(Path(folder), sizes), sizes, stack, peers=peers)
    print(table(rates))
    about = {"sizes": asdict(sizes), "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")}
    keep(ratios(rates) | asdict(rates) | about, args.json)
    if args.page:
        put(table(rates), args.page, "train")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write ratios and rates here")
    parser.add_argument("--page", type=Path, help="put the table between the marks of this page (docs/performance.md)")
    parser.add_argument("--small", action="store_true", help="a toy: shows that it works")
    parser.add_argument("--no_peers", action="store_true", help="only what needs no other environment")
    return parser.parse_args()


def settings_of(root: Path, sizes: Sizes) -> dict[str, Any]:
    """What the sides must know: shards, the same segments as padded arrays, and sizes."""
    for name, rate_hz in RATES_HZ.items():
        for k in range(sizes.recordings):
            record(root / "hdf5" / name, name, k, rate_hz, sizes.seconds)
    shards, arrays = {}, {}
    for data, datasets in SETS.items():
        folder = root / data.replace(" ", "")
        build(
            root / "hdf5", folder, BuildOptions(datasets=datasets, train_ratio=1.0, longest_segment_s=10.0), workers=1
        )
        shards[data], arrays[data] = str(folder), str(folder) + ".npy"
        np.save(arrays[data], padded(folder, sizes))
    config = str(ROOT / "configs" / "pretrain" / "aar.yaml")
    return {"shards": shards, "arrays": arrays, "config": config, **asdict(sizes)}


def record(folder: Path, dataset: str, k: int, rate_hz: float, seconds: int) -> None:
    """One recording of noise."""
    values = np.random.default_rng(k).standard_normal((round(seconds * rate_hz), AXES), np.float32)
    acc = SensorData(values=values, rate_hz=rate_hz, units="g", axes=("x", "y", "z"))
    dataset_to_hdf5(folder, dataset=dataset, species="cow", subject=f"{k:03d}", sensors={"acc": acc})


def padded(shards: Path, sizes: Sizes) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(8 batches, 3, 1000): the stream's first segments as the first system keeps them."""
    with open_stream(DataConfig(shards=[str(shards)]), "train") as stream:
        batch = next(stream.batches(0, 8 * sizes.batch, 8 * sizes.batch))
    values = batch.values.numpy().transpose(0, 2, 1)
    return np.pad(values, ((0, 0), (0, 0), (0, WINDOW - values.shape[2])))


def measure(settings: dict[str, Any], sizes: Sizes, stack: ExitStack, *, peers: bool) -> Rates:
    """All trainers in turn, some rounds."""
    say("the sides start")
    here = {"python": sys.executable, "env": {"PYTHONPATH": str(ROOT), "CORE": str(CORE), "DS_ACCELERATOR": "cpu"}}
    sides = [Peer("train_plain", settings, **here), Peer("train_ours", settings | {"role": "alone"}, **here)]
    if peers:
        sides.append(Peer("train_patchtst", settings, python=MODELS, env={"CORE": str(CORE)}))
    port = free_port()
    team = [rank(settings, number, port) for number in range(N_RANKS)]
    for process in (*sides, *team):
        stack.enter_context(process)
    measures = {name: (lambda s=side, n=name: rate_of(s, n, sizes.slice_s)) for side in sides for name in side.readers}
    assert all(one.readers for one in team)
    measures |= {ALONE: lambda: together(sides[1:2], like("100 Hz")), TEAM: lambda: together(team, "fp32")}
    found = in_rounds(measures, sizes.rounds)
    ranks = {1: max(found.pop(ALONE)), N_RANKS: max(found.pop(TEAM))}
    return Rates(alone={name: statistics.median(rates) for name, rates in found.items()}, ranks=ranks)


def in_rounds(measures: dict[str, Measure], rounds: int) -> dict[str, list[float]]:
    """Each in turn; the first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for k in range(-1, rounds):
        say(f"round {k + 1} of {rounds}, {len(measures)} trainers" if k >= 0 else "warming up")
        for name, once in measures.items():
            rate = once()
            if k >= 0:
                found[name].append(rate)
    return found


def rank(settings: dict[str, Any], number: int, port: int) -> Peer:
    """One rank of the team, on a core of its own."""
    place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": N_RANKS, "LOCAL_WORLD_SIZE": N_RANKS}
    env = {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    core = {"CORE": str((CORE + number) % (os.cpu_count() or 1)), "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    return Peer("train_ours", settings | {"role": "rank"}, python=sys.executable, env=env | core)


def rate_of(side: Peer, trainer: str, seconds: float) -> float:
    """Segments per CPU-second."""
    found = side.read(trainer, seconds)
    return found["segments"] / found["cpu_s"]


def together(team: list[Peer], trainer: str) -> float:
    """Segments per second of ranks that train the same batches."""
    for one in team:
        one.ask(trainer, 0.0)
    answers = [one.answer() for one in team]
    return float(answers[0]["segments"] / max(answer["wall_s"] for answer in answers))


if __name__ == "__main__":
    main()
