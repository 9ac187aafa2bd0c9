"""How far a predicted target lies from a measured one (Bland & Altman 1986).

y_true, y_pred (n,) -> bias, limits that hold 95 % of the differences

Several windows of one subject belong together: the spread of a difference is that within subjects and that between them
together (Bland & Altman 2007); the plain spread over windows is off where subjects have unlike numbers of them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

REACH = 1.96


def agreement(subject: NDArray[Any], y_true: NDArray[Any], y_pred: NDArray[Any]) -> dict[str, float]:
    """In the unit of the target: ``bias`` (predicted less measured), ``sd`` of a single difference, ``low`` and
    ``high`` limits of agreement, and the median and 95th percentile of the absolute error.

    Args:
        subject: (n,) names.
        y_true: (n,) measured.
        y_pred: (n,) predicted.
    """
    error = np.asarray(y_pred, np.float64) - np.asarray(y_true, np.float64)
    sd, bias = float(np.sqrt(sum(_variances(subject, error)))), float(error.mean())
    middle, most = np.quantile(np.abs(error), [0.5, 0.95])
    return {
        "bias": bias, "sd": sd, "low": bias - REACH * sd, "high": bias + REACH * sd,
        "median_error": float(middle), "error_95": float(most),
    }  # fmt: skip


def _variances(subject: NDArray[Any], error: NDArray[np.float64]) -> tuple[float, float]:
    """Within subjects and between them, by one-way analysis of variance with unlike numbers of windows."""
    names, of = np.unique(np.asarray(subject), return_inverse=True)
    n = np.bincount(of).astype(np.float64)
    mean = np.bincount(of, weights=error) / n
    if len(names) == 1:
        return float(error.var(ddof=1)) if len(error) > 1 else 0.0, 0.0
    inside = float(((error - mean[of]) ** 2).sum() / max(1, len(error) - len(names)))
    between = float((n * (mean - error.mean()) ** 2).sum() / (len(names) - 1))
    size = float((n.sum() - (n**2).sum() / n.sum()) / (len(names) - 1))
    return inside, max(0.0, (between - inside) / size)
