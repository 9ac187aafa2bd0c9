"""The 95 % interval of a score over subjects.

    value, draws of subjects (n,) -> standard error on a scale without ends -> t quantile -> low, high

The deviation of the draws is the standard error. It is taken sqrt(S / (S - 1)) times, since S subjects drawn from
themselves vary less than S subjects drawn from all, and Student's t with S - 1 degrees of freedom allows for its being
an estimate. A share is taken on the logit scale, an error on the logarithmic one, a correlation on Fisher's: so the
interval holds the value, leans towards where there is room, and ends before 0 and 1. The quantiles of the draws
themselves, with or without a correction for bias and skewness (BCa), are too narrow for ten subjects; what was measured
is in benchmarks/interval_coverage.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit

LEVEL = 0.95


@dataclass(frozen=True)
class Scale:
    """Where a score varies evenly."""

    to: Callable[[float], Any]
    back: Callable[[float], Any]
    slope: Callable[[float], float]
    """Derivative of ``to``."""


SHARE = Scale(logit, expit, lambda v: 1 / (v * (1 - v)))
ERROR = Scale(np.log, np.exp, lambda v: 1 / v)
CORRELATION = Scale(np.arctanh, np.tanh, lambda v: 1 / (1 - v * v))
PLAIN = Scale(float, float, lambda v: 1.0)
SCALES = {"mae": ERROR, "rmse": ERROR, "nll": ERROR, "r": CORRELATION, "r2": PLAIN}
"""Scores that are no shares."""
Limits = dict[str, float | None]
NONE: Limits = {"low": None, "high": None}


def interval(value: float | None, draws: NDArray[np.float64], n_subjects: int, scale: Scale) -> Limits:
    """``low`` and ``high`` around a value; None where it is not defined, or of one subject alone, which says nothing of
    others. Draws that are not defined are left out.

    Args:
        value: Of all subjects together.
        draws: (n,) of subjects drawn again.
        n_subjects: S.
        scale: Of the score: :data:`SHARE`, :data:`ERROR`, :data:`CORRELATION`; :data:`PLAIN` for differences.
    """
    draws = draws[np.isfinite(draws)]
    if value is None or n_subjects < 2 or len(draws) < 2:
        return NONE.copy()
    error = float(draws.std()) * np.sqrt(n_subjects / (n_subjects - 1))
    if error < 1e-12:  # all subjects alike, perfect ones for instance: the scale may end here
        return {"low": value, "high": value}
    reach = float(stats.t.ppf((1 + LEVEL) / 2, n_subjects - 1)) * error * scale.slope(value)
    at = scale.to(value)
    return {"low": float(scale.back(at - reach)), "high": float(scale.back(at + reach))}


def scale_of(score: str) -> Scale:
    """The scale of a score by its name."""
    return SCALES.get(score, SHARE)
