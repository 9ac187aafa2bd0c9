"""litdata: windows cut beforehand, or read_window out of whole recordings, one call a segment."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming import Cache, TemporalArrayLoader
from samples import NAMES, folder, precut, recordings

CHUNK = "64MB"


def readers(settings: dict[str, Any]) -> dict[str, Iterator[Any]]:
    """Batches for ever, (512, 1000, 3)."""
    found: dict[str, Iterator[Any]] = {}
    for name in NAMES:
        found[f"litdata pre-cut {name}"] = _precut(settings, name)
        found[f"litdata read_window {name}"] = _windows(settings, name)
    return found


def _written(settings: dict[str, Any], name: str, *, whole: bool) -> str:
    """The folder, written by litdata's own writer in this process: `optimize` would start others for it."""
    where = str(folder(settings, "litdata-windows" if whole else "litdata", name))
    loader = {"item_loader": TemporalArrayLoader()} if whole else {}
    cache = Cache(where, chunk_bytes=CHUNK, **loader)
    for i, values in enumerate((recordings if whole else precut)(settings, name)):
        cache[i] = {"x": np.array(values)}
    cache.done()
    cache.merge()
    return where


def _precut(settings: dict[str, Any], name: str) -> Iterator[Any]:
    dataset = StreamingDataset(_written(settings, name, whole=False), shuffle=True, seed=0)
    loader = StreamingDataLoader(dataset, batch_size=settings["batch"], num_workers=0, drop_last=True)
    while True:
        for batch in loader:
            yield batch["x"]


def _windows(settings: dict[str, Any], name: str) -> Iterator[Any]:
    where = _written(settings, name, whole=True)
    dataset = StreamingDataset(where, item_loader=TemporalArrayLoader())
    rng, window, n = np.random.default_rng(0), settings["window"], settings["batch"]
    while True:
        out = np.empty((n, window, settings["axes"]), settings["dtypes"][name])
        records = rng.integers(0, settings["n_recordings"], n).tolist()
        starts = rng.integers(0, settings["frames"] - window + 1, n).tolist()
        for i, (record, start) in enumerate(zip(records, starts, strict=True)):
            out[i] = dataset.read_window(record, start, window)["x"]
        yield out
