"""Segments cut on the host and sent, against segments cut where they are resident: on a GPU, or on the CPU without one.

    python benchmarks/device.py --json device.json          # some minutes on a GPU; needs no other argument
    python benchmarks/device.py --json device.json --small  # seconds, on the CPU too: the same code, nothing to quote

For float32 and int16 recordings of 100 Hz: segments a second of the stream alone, bytes sent for each segment, and the
training step of configs/pretrain/aar.yaml (bf16 on a GPU) fed by a batch that is there already, by the host path and by
the resident one. Rounds are interleaved, medians told. Then the gather itself, by an index for each element and by a
view of overlapping rows, beyond 2**31 elements where the GPU has room. Ends with exit code 1 if a single bit differs.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import psutil
import torch
from corpus import Corpus, make_corpus
from telling import keep

from aar_dist.base.config import load
from aar_dist.store.checkpoint import build_objective
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import SegmentStream, open_stream
from aar_dist.stream.maps import by_element
from aar_dist.stream.resident import room_for
from aar_dist.training.config import SCHEMA

CONFIG = Path(__file__).parents[1] / "configs" / "pretrain" / "aar.yaml"
PATHS = {"host": "never", "resident": "always"}
SEGMENT_S = 10.0
ROOM_BYTES = 20 * 10**9
"""Free on a GPU: then the gather is measured beyond 2**31 elements."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    n_recordings: int = 40
    frames: int = 416_750
    """Of each recording: 200 MB of float32 together."""
    batch: int = 512
    batches: int = 200
    steps: int = 30
    rounds: int = 5


SMALL = Sizes(n_recordings=2, frames=20_000, batch=4, batches=4, steps=1, rounds=1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    sizes = SMALL if args.small else Sizes() if on_gpu else Sizes(batch=128, batches=50, steps=1, rounds=3)
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "note": "" if on_gpu else "no GPU here: nothing is sent, both paths gather on the host",
        "precision": "bf16" if on_gpu else "fp32",
        "cores": os.cpu_count(),
        "sizes": asdict(sizes),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in ("f32", "i16"):
            corpus = make_corpus(Path(folder), name, n_recordings=sizes.n_recordings, frames=sizes.frames)
            figures[name] = compare(corpus, sizes, device)
    figures["gather"] = gathers(sizes, device)
    print(keep(figures, args.json))
    if not all(figures[name]["equal"] for name in ("f32", "i16", "gather")):
        sys.exit("the two paths differ")


def compare(corpus: Corpus, sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Both paths over one corpus."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    streams: dict[str, SegmentStream] = {}
    for path, resident in PATHS.items():
        data = DataConfig(
            shards=[str(corpus.shards)], segment_duration=SEGMENT_S, resident=resident, resident_limit="1TB"
        )
        streams[path] = open_stream(data, "train")
    began = wait_for(device)
    streams["resident"].place(device)
    placed_s = wait_for(device) - began
    source = streams["resident"].source
    rate: dict[str, list[float]] = {path: [] for path in PATHS}
    step: dict[str, list[float]] = {path: [] for path in ("there already", *PATHS)}
    train = trainer(device)
    for _ in range(sizes.rounds):
        for path, stream in streams.items():
            rate[path].append(sizes.batch * sizes.batches / seconds_of(stream, sizes, device))
        for path in step:
            step[path].append(step_ms(train, fed(streams, path, sizes.batch, device), sizes.steps, device))
    alike = zip(*(islice(s.batches(0, sizes.batch, sizes.batch, device), 3) for s in streams.values()), strict=True)
    figures = {
        "equal": all(same(a, b) for a, b in alike),
        "segments_per_s": {path: round(statistics.median(found)) for path, found in rate.items()},
        "bytes_sent_per_segment": {path: sent_bytes(s, sizes.batch) / sizes.batch for path, s in streams.items()},
        "step_ms": {path: round(statistics.median(found), 3) for path, found in step.items()},
        "resident_bytes": int(room_for(source, source.parts[:, 0]).sum()),
        "placed_in_s": round(placed_s, 4),
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "host_rss_bytes": psutil.Process().memory_info().rss,
    }
    for stream in streams.values():
        stream.close()
    return figures


def fed(streams: dict[str, SegmentStream], path: str, batch: int, device: torch.device) -> Iterator[SegmentBatch]:
    """Batches of one path; or one batch again and again, the limit of what any loader can reach."""
    if path in streams:
        return streams[path].batches(0, batch, batch, device)
    return repeat(next(streams["host"].batches(0, batch, batch, device)))


def trainer(device: torch.device) -> Callable[[SegmentBatch], float]:
    """One training step of the model of configs/pretrain/aar.yaml; waits for its loss, as the loop does."""
    config = load(SCHEMA, ["--config", str(CONFIG)])
    objective = build_objective(config.model, config.objective).to(device).train()
    if device.type == "cuda":
        objective.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4, fused=device.type == "cuda")

    def step(batch: SegmentBatch) -> float:
        optimizer.zero_grad()
        loss, _ = objective(batch)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def step_ms(train: Callable[[SegmentBatch], float], batches: Iterator[SegmentBatch], n: int, device: Any) -> float:
    """Milliseconds of a step, the wait for its batch included."""
    train(next(batches))
    began = wait_for(device)
    for batch in islice(batches, n):
        train(batch)
    return 1000 * (wait_for(device) - began) / n


def seconds_of(stream: SegmentStream, sizes: Sizes, device: torch.device) -> float:
    """Time of the stream alone, once its threads are at work."""
    batches = stream.batches(0, sizes.batch, sizes.batch, device)
    for _ in islice(batches, stream.data.prefetch_batches + 2):
        pass
    began = wait_for(device)
    for _ in islice(batches, sizes.batches):
        pass
    return wait_for(device) - began


def sent_bytes(stream: SegmentStream, batch: int) -> int:
    """Bytes of a batch that go to the device, by what a raw batch holds."""
    cutter = stream._cutter(torch.device("cpu"))
    raw = cutter.cut(cutter.plan([stream.tape.segments_at(stream.tape.batches(0, batch, 1)[0])])[0])
    held = [getattr(part, f.name) for part in (raw.plan, *raw.plan.groups) for f in fields(part)]
    values = [group.values for group in raw.groups]
    return sum(x.nbytes for x in (*held, *values) if torch.is_tensor(x))


def gathers(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Windows out of one flat int16 tensor, in both ways."""
    large = device.type == "cuda" and torch.cuda.mem_get_info(device)[0] > ROOM_BYTES
    n, width = (2**31 + 2**24 if large else 2**23), round(SEGMENT_S * 100) * 3
    flat = torch.randint(-(2**15), 2**15, (n,), dtype=torch.int16, device=device)
    first = torch.linspace(0, n - width, sizes.batch, dtype=torch.float64).to(torch.int64).to(device)
    ways = {
        "by_element": lambda: by_element(flat, first, width),
        "by_view": lambda: torch.index_select(flat.as_strided((n - width + 1, width), (1, 1)), 0, first),
    }
    took: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(sizes.rounds + 1):
        for way, gather in ways.items():
            began = wait_for(device)
            for _ in range(sizes.batches):
                gather()
            took[way].append(1e6 * (wait_for(device) - began) / sizes.batches)
    expected = torch.stack([flat[a : a + width] for a in first.tolist()])
    return {
        "elements": n,
        "equal": all(torch.equal(gather(), expected) for gather in ways.values()),
        "microseconds": {way: round(statistics.median(found[1:]), 1) for way, found in took.items()},
    }


def wait_for(device: torch.device) -> float:
    """The time, once the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def same(a: SegmentBatch, b: SegmentBatch) -> bool:
    """Equal to the bit."""
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("values", "valid", "key", "channel"))


if __name__ == "__main__":
    main()
