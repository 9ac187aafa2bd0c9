"""What rows have in common: rate, type, axes, and how stored values become what the model sees.

rows of the manifests -> form of each row -> Forms (few);  rows -> scale and zero, with statistics (Coded)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.stream.columns import Coded, Codes, Floats, distinct, grouped, rising
from aar_dist.stream.config import DataConfig, Statistics
from aar_dist.stream.manifests import Manifests, Mask
from aar_dist.stream.statistics import settled
from aar_dist.stream.tape import Ints


@dataclass(frozen=True, kw_only=True)
class Forms:
    """The f forms that rows take, and the form of each row."""

    of_row: Codes
    """(r,)"""
    rate_hz: Floats
    """(f,) as all that follow."""
    duration: Ints
    """Samples of a whole segment."""
    window: Ints
    """Samples of a segment handed on."""
    duration_s: Floats
    n_axes: Ints
    dtype: Ints
    """Index into ``dtypes``."""
    channel: Ints
    """(f, A) index into ``channels``; -1 beyond n_axes."""
    dtypes: tuple[str, ...]
    channels: tuple[str, ...]

    def each(self, values: NDArray[Any]) -> Coded:
        """``values`` (f, …) as a column of the rows."""
        return Coded(self.of_row, values)


def forms_of(manifests: Manifests, rows: Ints, data: DataConfig, *, joint: bool) -> Forms:
    """The forms of some rows. Sensors drawn together have channels by name, sensors drawn one at a time by kind."""
    rate = manifests.numbers("rate_hz")[rows]
    dtype, dtypes = rising(*_of(manifests, "dtype", rows))
    axes, axis_names = _of(manifests, "axes", rows)
    prefix, prefixes = _of(manifests, "sensor" if joint else "kind", rows)
    of_row, first = grouped(distinct(rate)[0], dtype, axes, prefix)
    named = [[f"{prefixes[prefix[i]]}.{axis}" for axis in axis_names[axes[i]].split(",")] for i in first]
    channels = tuple(sorted({c for of in named for c in of}))
    most = max(map(len, named))
    number = {name: i for i, name in enumerate(channels)}
    duration = np.maximum(1, np.rint(data.segment_duration * rate[first])).astype(np.int64)
    return Forms(
        of_row=of_row,
        rate_hz=rate[first],
        duration=duration,
        window=np.minimum(duration, data.max_window_length),
        duration_s=np.minimum(data.segment_duration, data.max_window_length / rate[first]),
        n_axes=np.array([len(of) for of in named]),
        dtype=dtype[first].astype(np.int64),
        channel=np.array([[number[c] for c in of] + [-1] * (most - len(of)) for of in named], np.int64),
        dtypes=tuple(dtypes),
        channels=channels,
    )


def scaling_of(
    manifests: Manifests, fitted: Mask, rows: Ints, width: int, data: DataConfig
) -> tuple[Coded, Coded, Statistics | None]:
    """Scale and zero of each row, (r, A) float32, statistics included; those of data sets by name."""
    scale, zero = (manifests.coded_lists(name, width).at(rows) for name in ("scale", "zero"))
    named: Statistics | None = None
    if data.normalize in ("recording", "dataset"):
        group, mean, std = _statistics(manifests, fitted, rows, width, data.normalize)
        code, first = grouped(scale.codes, zero.codes, group[rows])
        of = group[rows[first]]
        if data.normalize == "dataset":
            named = _settle(manifests, rows, group, mean, std, data.statistics)
        scales, zeros = scale[first] / std[of], (zero[first] - mean[of]) / std[of]
    else:
        code, first = grouped(scale.codes, zero.codes)
        scales, zeros = scale[first], zero[first]
    return Coded(code, scales.astype(np.float32)), Coded(code, zeros.astype(np.float32)), named


def _settle(
    manifests: Manifests, rows: Ints, group: Codes, mean: Floats, std: Floats, told: Statistics | None
) -> Statistics:
    """Put what is told in place of what was measured of the groups (g, A) of these rows; all of it by name."""
    here, first = np.unique(group[rows], return_index=True)
    columns = [_of(manifests, name, rows[first]) for name in ("dataset", "sensor", "axes")]
    mean[here], std[here], named = settled(columns, mean[here], std[here], told)
    return named


def _of(manifests: Manifests, name: str, rows: Ints) -> tuple[Codes, list[str]]:
    codes, names = manifests.names(name)
    return codes[rows], names


def _statistics(
    manifests: Manifests, fitted: Mask, rows: Ints, width: int, normalize: str
) -> tuple[Codes, Floats, Floats]:
    """Group of every row of the manifests; mean and deviation of each group, (g, A), 0 and 1 where it has no value.

    A group is a recording, or a data set by the subjects that are fitted, so that training and validation see one
    scale.
    """
    by = ("dataset", "sensor", "recording") if normalize == "recording" else ("dataset", "sensor")
    group, first = grouped(*(manifests.names(name)[0] for name in by))
    if normalize == "dataset":
        rows = np.flatnonzero(fitted)
    n, mean, std = (manifests.lists(name, width)[rows] for name in ("n_valid", "mean", "std"))
    ours = group[rows]

    def total(x: Floats) -> Floats:
        return np.stack([np.bincount(ours, x[:, a], len(first)) for a in range(width)], axis=1)

    count = np.maximum(total(n), 1)
    centre = total(n * mean) / count
    variance = total(n * (std**2 + (mean - centre[ours]) ** 2)) / count
    return group, centre, np.where(variance > 0, np.sqrt(variance), 1.0)
