"""Loss spikes: a step whose loss stands far above those of the steps before it.

loss of each step -> how many standard deviations it lies above the mean of the window before it
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

LEAST = 1e-3
"""Standard deviation, as a share of the mean, below which losses count as equal: rounding makes no spike."""


class Spikes:
    """What is needed to tell a spike; it follows from the losses of the last steps, so nothing of it is saved."""

    def __init__(self, window: int, sigma: float) -> None:
        self._sigma = sigma
        self._losses: deque[float] = deque(maxlen=window)
        self._inside = False

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Go through the steps of a run so far."""
        # A level that stays enters the window and ends its own spike: nothing older than two windows matters.
        losses = [row.get("loss") for row in rows if "loss" in row]
        for loss in losses[-2 * (self._losses.maxlen or 0) :]:
            self.see(loss)

    def see(self, loss: float | None) -> float | None:
        """One more step: its height in standard deviations if a spike begins with it, else None. The steps before the
        window is full are none; a loss that is not a number counts for nothing."""
        if loss is None or not math.isfinite(loss) or not self._sigma:
            return None
        height = self._height(loss)
        self._losses.append(loss)
        begins = height > self._sigma and not self._inside
        self._inside = height > self._sigma
        return height if begins else None

    def _height(self, loss: float) -> float:
        if len(self._losses) < (self._losses.maxlen or 0):
            return 0.0
        before = np.array(self._losses)
        mean = float(before.mean())
        return (loss - mean) / max(float(before.std()), LEAST * abs(mean), 1e-12)
