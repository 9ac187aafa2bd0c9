"""Sliding a window over a recording: what the model says at every place.

Signal -> places of windows -> blocks of samples -> batches -> Windows: start, probabilities, what was recorded
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aar_dist.evaluation.ethogram import Ints, bridged, stretches
from aar_dist.evaluation.predict_model import Predictor
from aar_dist.evaluation.predict_signal import BLOCK, Signal

BATCH = 256
GAP_S = 1.0
"""A shorter stretch without a sample is no gap."""


@dataclass(frozen=True)
class Said:
    """What a model says of the m windows of one recording, in samples."""

    start: Ints
    stop: Ints
    """(m,) windows reach to the next one, so that rounding leaves no sample between them."""
    output: NDArray[np.float32]
    """(m, K) probabilities, or (m, 1) values."""
    any_sample: NDArray[np.bool_]
    """(m,) whether anything was recorded in it."""
    recorded: Ints
    """(r, 2) stretches with samples, in order; shorter gaps than a second left out."""
    rate_hz: float


def places(n: int, window: int, hop: float, steps: int = 1) -> Ints:
    """Starts of the windows: round(k · hop) as in training, each hop in so many steps, and one that ends with the
    recording."""
    if n <= window:
        return np.zeros(1, np.int64)
    if hop <= steps:
        return np.arange(n - window + 1)  # every sample; more there are not
    k = np.arange(int((n - window) / hop * steps) + 2)
    # Rounded as in training where a hop begins: 0.4 of 2.5 samples and 1 sample are not the same in floats.
    grid = np.rint(k // steps * hop + k % steps * (hop / steps)).astype(np.int64)
    return np.unique(np.append(grid[grid <= n - window], n - window))


def slide(
    predictor: Predictor,
    signal: Signal,
    hop_s: float,
    *,
    batch_size: int = BATCH,
    advance: Callable[[float], None] = lambda seconds: None,
) -> Said:
    """Ask the model about every window of a recording.

    Args:
        hop_s: From one window to the next [s].
        batch_size: Windows at once.
        advance: Told the seconds of the recording that were done.
    """
    window = min(predictor.samples(signal.rate_hz), signal.n)
    steps = predictor.steps(hop_s)
    hop = predictor.training_hop_s if steps else hop_s
    start = places(signal.n, window, hop * signal.rate_hz, steps or 1)
    stop = np.maximum(start + window, np.append(start[1:], 0))
    said, any_sample, recorded = [], [], [np.zeros((0, 2), np.int64)]
    done = 0
    for first, last in _blocks(start, stop):
        values = signal.read(int(start[first]), int(stop[last - 1]))
        present = np.asarray(np.isfinite(values[done - start[first] :]).any(axis=1))
        recorded.append(stretches(present, done))
        for i in range(first, last, batch_size):
            at = start[i : min(i + batch_size, last), None] - start[first] + np.arange(window)
            output, has = predictor.says(values[at], signal.rate_hz, signal.columns)
            said.append(output)
            any_sample.append(has)
        advance((stop[last - 1] - done) / signal.rate_hz)
        done = int(stop[last - 1])
    return Said(
        start,
        stop,
        np.concatenate(said),
        np.concatenate(any_sample),
        bridged(np.concatenate(recorded), GAP_S * signal.rate_hz),
        signal.rate_hz,
    )


def _blocks(start: Ints, stop: Ints) -> Iterator[tuple[int, int]]:
    """Windows [first, last) whose samples are read together."""
    first = 0
    while first < len(start):
        last = max(first + 1, int(np.searchsorted(stop, start[first] + BLOCK, side="right")))
        yield first, last
        first = last
