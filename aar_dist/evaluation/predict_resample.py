"""A sensor at another rate: polyphase, stretch by stretch, with the same result as in one piece.

read(a, b) at one rate -> rate, length and read(a, b) at another
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, resample_poly

Samples = NDArray[np.float32]
Read = Callable[[int, int], Samples]
LARGEST_FACTOR = 1000
PERIODS = 10
"""The low-pass filter reaches so many periods of the lower rate to either side."""


def resampled(read: Read, n: int, rate_hz: float, target_hz: float) -> tuple[float, int, Read]:
    """The rate reached, the length, and a read at that rate.

    The rate is ``rate_hz`` times the fraction of numbers up to 1,000 that comes nearest to the target. A low-pass
    filter keeps fast movement from appearing as slow one. What lies beyond the ends is taken to be the first and the
    last sample. A resampled value is missing where one of the two recorded ones around it is.
    """
    ratio = Fraction(target_hz / rate_hz).limit_denominator(LARGEST_FACTOR)
    up, down = ratio.numerator, ratio.denominator
    length = max(1, -(-n * up // down))
    return rate_hz * up / down, length, partial(_read, read, n, up, down, _filter(up, down))


def _filter(up: int, down: int) -> NDArray[np.float64]:
    widest = max(up, down)
    taps: NDArray[np.float64] = firwin(2 * PERIODS * widest + 1, 1 / widest, window=("kaiser", 5.0))
    return taps


def _read(read: Read, n: int, up: int, down: int, taps: NDArray[np.float64], start: int, stop: int) -> Samples:
    """Resampled samples [start, stop). The stretch begins at a sample that both rates share."""
    reach = len(taps) // (2 * up) + 2
    first = (start * down // up - reach) // down * down
    last = (stop - 1) * down // up + 1 + reach
    place = np.clip(np.arange(first, last + 1), 0, n - 1)
    recorded = read(int(place[0]), int(place[-1]) + 1)[place - place[0]]
    missing = ~np.isfinite(recorded)
    made = resample_poly(_filled(recorded, missing), up, down, axis=0, window=taps)
    begin = first // down * up
    values: Samples = made[start - begin : stop - begin].astype(np.float32)
    at = np.arange(start, stop) * down / up - first
    around = [np.clip(edge(at).astype(np.int64), -first, n - 1 - first) for edge in (np.floor, np.ceil)]
    values[missing[around[0]] | missing[around[1]]] = np.nan
    return values


def _filled(values: Samples, missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Straight lines over what is missing, (n, A); 0 where nothing is there at all."""
    filled = values.astype(np.float64)
    places = np.arange(len(values))
    for axis in range(values.shape[1]):
        gap = missing[:, axis]
        if gap.all():
            filled[:, axis] = 0.0
        elif gap.any():
            filled[gap, axis] = np.interp(places[gap], places[~gap], filled[~gap, axis])
    return filled
