"""torch's DataLoader over a memory map, one item a segment, in the process or in two workers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from samples import NAMES, recordings
from torch.utils.data import DataLoader, Dataset

AN_EPOCH = 1 << 20


class _Segments(Dataset[torch.Tensor]):
    def __init__(self, settings: dict[str, Any], name: str) -> None:
        self.values = recordings(settings, name)
        self.window = settings["window"]
        rng = np.random.default_rng(0)
        self.recording = rng.integers(0, len(self.values), AN_EPOCH)
        self.start = rng.integers(0, self.values.shape[1] - self.window + 1, AN_EPOCH)

    def __len__(self) -> int:
        return AN_EPOCH

    def __getitem__(self, i: int) -> torch.Tensor:
        start = self.start[i]
        return torch.from_numpy(np.array(self.values[self.recording[i], start : start + self.window]))


def readers(settings: dict[str, Any]) -> dict[str, Iterator[Any]]:
    """Batches for ever, (512, 1000, 3)."""
    return {
        f"torch DataLoader, {workers} workers {name}": _batches(settings, name, workers)
        for name in NAMES
        for workers in (0, 2)
    }


def _batches(settings: dict[str, Any], name: str, workers: int) -> Iterator[Any]:
    while True:
        yield from DataLoader(_Segments(settings, name), batch_size=settings["batch"], num_workers=workers)
