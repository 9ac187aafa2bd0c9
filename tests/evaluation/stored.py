"""A stored model to predict with, and what describes tables for it."""

from dataclasses import replace

import torch

from aar_dist.base.config import ClassSpec, dump
from aar_dist.objectives.regression import Regression
from aar_dist.store.checkpoint import build_objective
from aar_dist.store.registry import Store
from aar_dist.stream.config import DataConfig
from aar_dist.stream.windows import WindowConfig, open_windows
from aar_dist.training.config import ENCODER
from aar_dist.training.finetuning.config import CLASSIFICATION, RESOLVED, FinetuneConfig
from aar_dist.training.finetuning.task import seen_by

COLLARS = """
dataset: toy
glob: "*.csv"
rate_hz: 20
subject: {column: animal}
species: cow
sensors: {acc: {columns: [ax, ay, az], axes: [x, y, z], units: g}}
"""
"""Describes tables to predict."""
REGRESSION = f"{Regression.__module__}.{Regression.__name__}"


def publish(
    tmp_path, data: DataConfig, windows: WindowConfig, *, regression=False, pooling="average", forget=(), **model
):
    """An untrained model with the manifest of a fine-tuned one, its source and its windows."""
    source, table = open_windows(data, windows)
    data = replace(data, statistics=source.statistics)
    head = {"n_channels": source.n_columns, "pooling": pooling}
    config = FinetuneConfig(
        data=data,
        model=ClassSpec(ENCODER, {"d_embedding": 64, "n_layers": 1, "patch_size": 5, "max_window_length": 50, **model}),
        objective=ClassSpec(REGRESSION, head) if regression else ClassSpec(CLASSIFICATION, head | {"n_classes": 3}),
    )
    about = {
        "classes": None if regression else list(table.classes or ()),
        "windows": {"segment_duration": data.segment_duration, "hop_s": windows.hop_s, "min_share": windows.min_share,
                    "classes": None, "datasets": windows.datasets},
        "channels": list(source.channels),
        "datasets": sorted({*table.dataset.tolist()}),
        **seen_by(source, table),
    }  # fmt: skip
    torch.manual_seed(2)
    weights = build_objective(config.model, config.objective).state_dict()
    kept = {key: value for key, value in about.items() if key not in forget}
    text = dump(RESOLVED, config)
    checkpoint = Store(tmp_path / "store").publish("m", weights, config=text, card="# m\n", metrics={}, about=kept)
    return checkpoint, source, table
