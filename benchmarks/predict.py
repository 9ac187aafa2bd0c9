"""How fast recordings are predicted, against real time and against the model alone. Prints one JSON object.

    python benchmarks/predict.py                          # the first system's model, half a day of 3 axes at 25 Hz
    python benchmarks/predict.py --hours 2 --d_embedding 256 --n_layers 6

``whole`` is the command from HDF5 to the files on disk, without the start of Python; ``slide`` reads, cuts and asks the
model; ``forward`` asks it about as many windows, cut beforehand: the physical limit. ``share_of_forward`` goes by
processor time, so that a busy machine does not matter.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aar_dist.base.config import ClassSpec, dump
from aar_dist.evaluation.predict import predict
from aar_dist.evaluation.predict_model import open_predictor
from aar_dist.evaluation.predict_options import PredictOptions
from aar_dist.evaluation.predict_signal import signal_of
from aar_dist.evaluation.predict_windows import BATCH, slide
from aar_dist.recordings.contract import find_recordings
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.store.checkpoint import Checkpoint, build_objective
from aar_dist.store.registry import Store
from aar_dist.stream.config import DataConfig
from aar_dist.training.config import ENCODER
from aar_dist.training.finetuning.config import CLASSIFICATION, RESOLVED, FinetuneConfig

RATE_HZ, WINDOW_S, N_CLASSES, WANTED = 25.0, 10.0, 8, 500
COLUMNS = ["acc.x", "acc.y", "acc.z"]


def publish(store: Path, d_embedding: int, n_layers: int) -> Checkpoint:
    """A fine-tuned model with random weights."""
    samples = round(RATE_HZ * WINDOW_S)
    config = FinetuneConfig(
        data=DataConfig(segment_duration=WINDOW_S, max_window_length=samples),
        model=ClassSpec(ENCODER, {"d_embedding": d_embedding, "n_layers": n_layers, "max_window_length": samples}),
        objective=ClassSpec(CLASSIFICATION, {"n_classes": N_CLASSES, "pooling": "average"}),
    )
    weights = build_objective(config.model, config.objective).state_dict()
    about = {
        "classes": [f"class_{i}" for i in range(N_CLASSES)],
        "windows": {"segment_duration": WINDOW_S, "hop_s": None, "min_share": 1.0, "classes": None, "datasets": None},
        "channels": COLUMNS,
        "columns": [COLUMNS],
        "rates_hz": [RATE_HZ],
    }
    return Store(store).publish(
        "bench", weights, config=dump(RESOLVED, config), card="# bench\n", metrics={}, about=about
    )


def record(folder: Path, hours: float) -> None:
    """One long recording of noise, int16 as collars write it."""
    n = round(hours * 3600 * RATE_HZ)
    values = np.random.default_rng(0).normal(0, 300, size=(n, 3)).astype(np.int16)
    acc = SensorData(values=values, rate_hz=RATE_HZ, units="g", axes=("x", "y", "z"), scale=1e-3)
    dataset_to_hdf5(folder, dataset="herd", species="cow", subject="1", sensors={"acc": acc})


def seconds_of(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock time and processor time of one call."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - used


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=12.0)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--d_embedding", type=int, default=128)
    parser.add_argument("--n_layers", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=BATCH)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        checkpoint = publish(root / "store", args.d_embedding, args.n_layers)
        record(root / "herd", args.hours)
        predictor = open_predictor(checkpoint)
        signal = signal_of(find_recordings(root / "herd")[0], predictor, sensor=None, resample=False)
        hop_s = WINDOW_S * (1 - args.overlap)
        window = predictor.samples(RATE_HZ)
        cut = np.resize(signal.read(0, window * args.batch_size), (args.batch_size, window, 3))
        predictor.says(cut, RATE_HZ, signal.columns)  # the first call makes its buffers
        n_windows = len(slide(predictor, signal, hop_s, batch_size=args.batch_size).start)
        options = PredictOptions(overlap=args.overlap, batch_size=args.batch_size)
        batches = -(-n_windows // args.batch_size)
        took = {
            "forward": seconds_of(lambda: [predictor.says(cut, RATE_HZ, signal.columns) for _ in range(batches)]),
            "slide": seconds_of(lambda: slide(predictor, signal, hop_s, batch_size=args.batch_size)),
            "whole": seconds_of(lambda: predict(checkpoint, root / "herd", root / "out", options)),
        }
    recorded_s = args.hours * 3600
    real_time = {what: round(recorded_s / wall) for what, (wall, _) in took.items()}
    print(
        json.dumps(
            {
                **vars(args),
                "cores": os.cpu_count(),
                "n_windows": n_windows,
                "seconds": {what: round(wall, 3) for what, (wall, _) in took.items()},
                "processor_seconds": {what: round(used, 3) for what, (_, used) in took.items()},
                "times_real_time": real_time,
                "share_of_forward": round(took["forward"][1] / took["whole"][1], 3),
                "wanted_times_real_time": WANTED,
                "fast_enough": real_time["whole"] >= WANTED,
                "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
