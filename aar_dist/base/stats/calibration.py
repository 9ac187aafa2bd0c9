"""What a probability is worth: whether of the windows said with 80 % four in five are right.

    validation probabilities (m, K), classes -> temperature T -> test probabilities p^(1/T), normed
    probabilities (n, K), classes -> expected calibration error, Brier score, negative log-likelihood, reliability bins

The temperature (Guo et al. 2017) changes no prediction. It works on logarithms of probabilities as on logits: softmax
does not see the constant between them. Labels are smoothed by one window's worth (Platt 1999), without which a few
windows that are all right would ask for a temperature of 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import log_softmax

Floats = NDArray[np.float64]
BINS = 15
HOTTEST = 20.0
"""Temperatures are looked for between its inverse and itself."""
LEAST = 1e-12
"""Probabilities below are taken as this: a float32 may have come out as 0."""


@dataclass(frozen=True)
class Bin:
    """Windows of like confidence."""

    n: int
    confidence: float
    """Their mean."""
    accuracy: float
    """The share that is right."""


def temperature(probability: NDArray[Any], label: NDArray[Any]) -> float:
    """The temperature under which the labels are most likely; above 1, the model was too sure.

    Args:
        probability: (n, K) of windows that the weights were not fitted to.
        label: (n,) their classes.
    """
    logs = _logs(probability)
    m, k = logs.shape
    doubt = 1 / (m + 2)
    wanted = np.full((m, k), doubt / (k - 1))
    wanted[np.arange(m), np.asarray(label)] = 1 - doubt

    def surprise(log_t: float) -> float:
        return float(-(wanted * log_softmax(logs / np.exp(log_t), axis=1)).sum(1).mean())

    ends = (-np.log(HOTTEST), np.log(HOTTEST))
    found = optimize.minimize_scalar(surprise, bounds=ends, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def at_temperature(probability: NDArray[Any], t: float) -> Floats:
    """(n, K) probabilities at a temperature."""
    scaled: Floats = np.exp(log_softmax(_logs(probability) / t, axis=1))
    return scaled


def surprise(probability: NDArray[Any], label: NDArray[Any]) -> Floats:
    """(n,) negative log-likelihood of each label [nats]."""
    return -_picked(_logs(probability), label)


def brier(probability: NDArray[Any], label: NDArray[Any]) -> Floats:
    """(n,) squared distance of the probabilities from what was so, over all classes: 0 to 2."""
    probability = np.asarray(probability, np.float64)
    truth = np.eye(probability.shape[1])[np.asarray(label)]
    squared: Floats = ((probability - truth) ** 2).sum(1)
    return squared


def reliability(confidence: NDArray[Any], right: NDArray[Any], bins: int = BINS) -> list[Bin]:
    """Bins of like many windows, from the least to the most confident; those of equal confidence share one, whatever
    their order."""
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    place = (stats.rankdata(confidence) - 0.5) / len(confidence)
    of = np.minimum((place * bins).astype(np.int64), bins - 1)
    return [
        Bin(int((of == k).sum()), float(confidence[of == k].mean()), float(right[of == k].mean()))
        for k in np.unique(of).tolist()
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy, windows weighing alike."""
    n = sum(one.n for one in bins)
    return float(sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / n)


def _logs(probability: NDArray[Any]) -> Floats:
    logs: Floats = np.log(np.maximum(np.asarray(probability, np.float64), LEAST))
    return logs


def _picked(values: Floats, label: NDArray[Any]) -> Floats:
    picked: Floats = values[np.arange(len(values)), np.asarray(label)]
    return picked
