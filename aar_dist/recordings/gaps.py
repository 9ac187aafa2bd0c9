"""Where a recording stops being contiguous.

timestamps (n,) [s], rate -> [(start, stop), …] of the stretches without a gap
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import RecordingError

PERIODS = 1.5
"""A step of more sample periods than this is a gap, if nothing else is said."""
_DISAGREEMENT = 0.05


def contiguous_runs(
    timestamps_s: NDArray[Any], rate_hz: float, max_step_s: float | None, what: str
) -> list[tuple[int, int]]:
    """Stretches [start, stop) between steps longer than ``max_step_s`` (1.5 sample periods where None).

    RecordingError, beginning with ``what``, where a timestamp is missing or goes back, or where the timestamps tell
    another rate than ``rate_hz``: neither is then to be trusted.
    """
    times = np.asarray(timestamps_s, np.float64)
    if not len(times):
        return [(0, 0)]
    if not np.isfinite(times).all():
        raise RecordingError(f"{what}: row {int((~np.isfinite(times)).argmax())} has no timestamp; leave such rows out")
    steps = np.diff(times)
    if (steps < 0).any():
        raise RecordingError(f"{what}: timestamps go back after row {int((steps < 0).argmax())}; sort or split there")
    limit = PERIODS / rate_hz if max_step_s is None else max_step_s
    cuts = np.flatnonzero(steps > limit) + 1
    bounds = [0, *cuts.tolist(), len(times)]
    runs = list(pairwise(bounds))
    _check_rate(times, runs, rate_hz, limit, what)
    return runs


def _check_rate(
    times: NDArray[np.float64], runs: list[tuple[int, int]], rate_hz: float, limit_s: float, what: str
) -> None:
    """Inside the stretches, the timestamps and the rate tell the same duration, to 5 % and the longest step allowed."""
    by_time = sum(float(times[stop - 1] - times[start]) for start, stop in runs)
    by_rate = sum(stop - start - 1 for start, stop in runs) / rate_hz
    if len(runs) > 1 + len(times) // 2:
        raise RecordingError(
            f"{what}: {len(runs) - 1} of {len(times) - 1} steps are longer than {limit_s:g} s at {rate_hz:g} Hz; "
            "check the rate, or allow longer steps"
        )
    if abs(by_time - by_rate) > _DISAGREEMENT * by_rate + limit_s:
        raise RecordingError(
            f"{what}: the timestamps span {by_time:g} s, but the samples last {by_rate:g} s at {rate_hz:g} Hz; "
            "check the rate"
        )
