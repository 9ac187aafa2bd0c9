"""Whether a file says what the stored model says, and how fast.

file, windows -> batches of 1, 7 and 64 in turn -> the largest difference;   -> milliseconds a batch
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from statistics import median

import numpy as np
import torch

from aar_dist.evaluation.exporting.formats import Ask, Floats
from aar_dist.evaluation.exporting.windowed import WindowModel
from aar_dist.evaluation.exporting.windows import Known, with_holes

SIZES = (1, 7, 64)
"""Windows at once, in turn."""
HOLED = 64
"""Windows with holes."""
TIMED = (1, 64)
LEAST_CALLS, MOST_CALLS, LONG_ENOUGH_S = 3, 50, 0.3


@dataclass(frozen=True)
class Parity:
    """How far a file is from the model."""

    recorded: float
    """The largest difference on windows as they were recorded, against the model behind the stream of training."""
    holed: float
    """The same on windows with holes, against the model alone."""
    windows: int
    windows_with_holes: int

    @property
    def error(self) -> float:
        """The larger one; infinite where one says a number and the other none."""
        return max(self.recorded, self.holed)

    def __str__(self) -> str:
        return (
            f"largest difference {self.error:.1e} on {self.windows} real windows and {self.windows_with_holes} with "
            f"holes, in batches of {', '.join(map(str, SIZES))}"
        )


def compare(ask: Ask, model: WindowModel, known: Known) -> Parity:
    """Ask a file about real windows, whole and with holes."""
    holed = with_holes(known.values[:HOLED])
    with torch.inference_mode():
        said = model(torch.from_numpy(holed)).numpy()
    return Parity(
        _difference(ask, known.values, known.said),
        _difference(ask, holed, said),
        len(known.values),
        len(holed),
    )


def _difference(ask: Ask, values: Floats, said: Floats) -> float:
    """The largest difference, every size of batch asked: few windows are asked about again."""
    which = np.resize(np.arange(len(values)), max(len(values), sum(SIZES)))
    return largest_difference(in_turn(ask, values[which]), said[which])


def in_turn(ask: Ask, values: Floats) -> Floats:
    """Answers to all windows, asked in batches of several sizes."""
    parts, first = [], 0
    for size in cycle(SIZES):
        parts.append(ask(values[first : first + size]))
        first += size
        if first >= len(values):
            return np.concatenate(parts)
    raise AssertionError("a cycle does not end")


def largest_difference(a: Floats, b: Floats) -> float:
    """0 where both are NaN, infinite where one is."""
    assert a.shape == b.shape, f"{a.shape} is not {b.shape}"
    with np.errstate(invalid="ignore"):
        apart = np.abs(a.astype(np.float64) - b)
    apart[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


def latencies(ask: Ask, values: Floats) -> dict[int, float]:
    """Milliseconds of a batch of each size of ``TIMED``, the median of several calls; torch keeps to one thread."""
    with one_thread():
        return {size: _latency(ask, np.resize(values, (size, *values.shape[1:]))) for size in TIMED}


def plain(model: WindowModel) -> Ask:
    """The model itself, to compare with."""

    def ask(values: Floats) -> Floats:
        with torch.inference_mode():
            said: Floats = model(torch.from_numpy(values)).numpy()
        return said

    return ask


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes in one thread meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _latency(ask: Ask, values: Floats) -> float:
    ask(values)  # the first call prepares
    took: list[float] = []
    while len(took) < LEAST_CALLS or (len(took) < MOST_CALLS and sum(took) < LONG_ENOUGH_S):
        start = time.perf_counter()
        ask(values)
        took.append(time.perf_counter() - start)
    return 1e3 * median(took)
