"""How many segments of each data set one epoch draws.

seconds recorded per data set -> segments per data set
"""

import math
from collections.abc import Sequence

from aar_dist.stream.config import MixtureConfig

TEMPERATURE_CAP = 20.0
"""A second of the rarest data set is drawn at most this many times as often as one of the commonest."""


def segments_per_epoch(seconds: Sequence[float], segment_s: float, mixture: MixtureConfig) -> list[int]:
    """Segments of each data set in an epoch; at least one.

    ``capped`` is the rule of the first system, applied to the seconds given (the split's own, as its README says):
    min(seconds · oversampling, smallest · oversampling · imbalance). ``temperature`` follows p ~ seconds**alpha.
    """
    if not seconds:
        return []
    durations = _durations(list(seconds), mixture)
    # A whole number that rounding left a hair below itself is meant whole.
    return [max(1, math.floor(d / segment_s + 1e-6)) for d in durations]


def _durations(seconds: list[float], mixture: MixtureConfig) -> list[float]:
    over = mixture.oversampling_factor
    if mixture.rule == "capped":
        cap = min(seconds) * over * mixture.max_dataset_imbalance
        return [min(s * over, cap) for s in seconds]
    if mixture.rule == "proportional":
        return [s * over for s in seconds]
    if mixture.rule == "uniform":
        return [sum(seconds) * over / len(seconds)] * len(seconds)
    weight = [s ** (mixture.alpha - 1) for s in seconds]
    weight = [min(w, TEMPERATURE_CAP * min(weight)) for w in weight]
    share = [w * s for w, s in zip(weight, seconds, strict=True)]
    return [sum(seconds) * over * p / sum(share) for p in share]
