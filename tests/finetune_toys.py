"""A herd of six whose three behaviours differ in frequency, and a small stored model to start from."""

from pathlib import Path

import numpy as np
import torch

from aar_dist.base.config import ClassSpec, dump
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.store.checkpoint import Checkpoint, build_objective
from aar_dist.store.registry import Store
from aar_dist.stream.config import DataConfig
from aar_dist.training.config import ENCODER, MASKED, SCHEMA, PretrainConfig

CLASSES = ("rest", "walk", "run")
RATE_HZ = 20.0
ENCODER_ARGUMENTS = {"d_embedding": 64, "n_layers": 2, "patch_size": 5}

QUICK = {
    "data.segment_duration": 1.0,
    "train.batch_size": 16,
    "train.epochs": 3,
    "train.log_every": 20,
    "optim.lr": 1e-3,
    "tracking.mode": "disabled",
}

FOLDS = QUICK | {
    "train.epochs": 3, "train.patience": 2, "n_folds": 2, "baselines": '["majority", "logistic"]', "probes": "none",
}  # fmt: skip


def folds_settings(shards: Path, backbone: str, out: Path, **more: object) -> dict:
    """What launch/folds.py is told: two folds, baselines that take no time, no probes."""
    return FOLDS | {"data.shards": shards, "init_from": backbone, "store.path": out / "store", "out": out, **more}


def make_shards(root: Path, *, name: str = "toy", classes_of: dict[str, list[int]] | None = None) -> Path:
    """Runs of five seconds of each behaviour in turn; ``classes_of`` says which a subject shows."""
    rng = np.random.default_rng(0)
    for subject, shown in (classes_of or {f"s{i}": [0, 1, 2] for i in range(6)}).items():
        label = np.repeat(np.resize(shown, 24), round(5 * RATE_HZ))
        t = np.arange(len(label)) / RATE_HZ
        wave = np.sin(2 * np.pi * np.array([0.0, 2.0, 5.0])[label] * t)
        values = (wave[:, None] + 0.2 * rng.normal(size=(len(t), 3))).astype("<f4")
        acc = SensorData(values=values, units="g", rate_hz=RATE_HZ, axes=("x", "y", "z"))
        dataset_to_hdf5(
            root / "recordings" / name,
            dataset=name,
            species="cow",
            subject=subject,
            sensors={"acc": acc},
            label=label.astype(np.int16),
            classes=CLASSES,
        )
    options = BuildOptions(datasets=(name,), longest_segment_s=2.0)
    return build(root / "recordings", root / "set", options, workers=1).folder


def publish_backbone(store: Path, *, name: str = "toy", **arguments: object) -> Checkpoint:
    """A version whose backbone is random, as after pretraining on windows of 20 samples."""
    config = PretrainConfig(
        data=DataConfig(segment_duration=1.0, max_window_length=20),
        model=ClassSpec(ENCODER, {**ENCODER_ARGUMENTS, "max_window_length": 20, **arguments}),
        objective=ClassSpec(MASKED),
    )
    torch.manual_seed(5)
    weights = build_objective(config.model, config.objective).state_dict()
    return Store(store).publish(name, weights, config=dump(SCHEMA, config), card="# toy\n", metrics={}, about={})
