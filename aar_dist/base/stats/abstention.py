"""Answering only where it is sure: how many windows a model may answer, and how often it is then right.

    confidence (n,), right (n,) -> risk at every coverage -> area under it, coverage at an accuracy
    validation confidence, right, accuracy wanted -> threshold -> what it keeps on the test side

Windows of equal confidence are answered together or not at all (the curve: El-Yaniv & Wiener 2010; its area: Geifman &
El-Yaniv 2017).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RiskCoverage:
    """Risk at each coverage that a threshold can give, the surest windows first."""

    threshold: Floats
    """(m,) falling: windows at least so confident are answered."""
    coverage: Floats
    """(m,) rising to 1: the share of the windows."""
    risk: Floats
    """(m,) the share of these that is wrong."""

    @property
    def area(self) -> float:
        """The mean risk over all coverages from 0 to 1 (AURC); a curve's first value reaches down to 0."""
        return float((self.risk * np.diff(self.coverage, prepend=0.0)).sum())

    def coverage_at(self, accuracy: float) -> float:
        """The greatest coverage at which so many are right; 0 if there is none."""
        enough = self.risk <= 1 - accuracy + 1e-12
        return float(self.coverage[enough].max(initial=0.0))

    def threshold_at(self, accuracy: float) -> float | None:
        """The least confidence to answer at, for so many to be right: minus infinity if they are of all windows, None
        if no threshold reaches that."""
        enough = np.flatnonzero(self.risk <= 1 - accuracy + 1e-12)
        if not len(enough):
            return None
        return -np.inf if enough[-1] == len(self.risk) - 1 else float(self.threshold[enough[-1]])


def best_area(risk: float) -> float:
    """The area of a model with this risk over all windows that is surest of exactly those that are right."""
    return risk + (1 - risk) * float(np.log1p(-risk)) if risk < 1 else 1.0


def risk_coverage(confidence: NDArray[Any], right: NDArray[Any]) -> RiskCoverage:
    """The curve of n windows.

    Args:
        confidence: (n,) any number that is greater where a model is surer.
        right: (n,) whether it is.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    order = np.argsort(-confidence, kind="stable")
    sorted_by, wrong = confidence[order], np.cumsum(1 - right[order])
    last = np.append(np.flatnonzero(np.diff(sorted_by)), len(sorted_by) - 1)  # of each confidence
    n = last + 1
    return RiskCoverage(sorted_by[last], n / len(sorted_by), wrong[last] / n)
