"""Packing: values of more than 16 bits kept in 16, on one grid for each axis of a sensor throughout its data set.

    values in the unit of the kind -> Grid.pack -> int16 (-32768 is NaN) or float16
    value = stored * scale + zero

Manifests name the type of packed samples by the format, without byte order; to NumPy that is the same type. The scale
is a power of two and the zero one of its multiples (aar_dist/shards/grids.py chooses them), so that the same stretch in
two recordings of a data set is stored as the same bytes, which the leak audit relies on, and nothing is rounded twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aar_dist.recordings.contract import Sensor
from aar_dist.recordings.units import unit_handed_on
from aar_dist.shards.checks import MISSING

Floats = NDArray[np.float64]
Format = Literal["int16", "float16"]

LAST = 32767  # of int16: the last step on either side of zero
LARGEST_HALF = float(np.finfo(np.float16).max)
BLOCK = 1 << 14  # samples packed at a time
_FORMATS: dict[str, Format] = {"int16": "int16", "float16": "float16"}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Scale and zero per axis: value = stored * scale + zero."""

    format: Format
    scale: tuple[float, ...]
    zero: tuple[float, ...]

    def pack(self, values: Floats) -> NDArray[Any]:
        """(n, A) in the unit of the kind as (n, A) int16 or float16; what lies outside the grid at its end."""
        steps = (values - self.zero) / self.scale
        if self.format == "float16":
            return np.clip(steps, -LARGEST_HALF, LARGEST_HALF).astype("<f2")
        gap = np.isnan(steps)
        return np.where(gap, MISSING, np.clip(np.rint(steps), -LAST, LAST)).astype("<i2")

    def unpack(self, stored: NDArray[Any]) -> Floats:
        """What :meth:`pack` was given, to within its error."""
        steps = stored.astype(np.float64)
        if self.format == "int16":
            steps[stored == MISSING] = np.nan
        values: Floats = steps * self.scale + self.zero
        return values


def can_be_packed(sensor: Sensor) -> bool:
    """Whether it has more than 16 bits; what has not is kept as it is, without any loss."""
    return np.dtype(sensor.dtype).itemsize > 2


def grid_of(dtype: str, scale: Sequence[float], zero: Sequence[float]) -> Grid | None:
    """The grid of what is stored with this type, scale and zero; None where it is as recorded."""
    form = _FORMATS.get(dtype)
    return Grid(format=form, scale=tuple(scale), zero=tuple(zero)) if form else None


def packed(sensor: Sensor, grid: Grid) -> Sensor:
    """The sensor as it is stored on a grid."""
    units = unit_handed_on(sensor.kind, sensor.units)
    return replace(sensor, dtype=grid.format, units=units, scale=grid.scale, offset=grid.zero)


def pack(values: NDArray[Any], source: Sensor, grid: Grid) -> tuple[NDArray[Any], Floats]:
    """Samples (n, A) as recorded -> as stored, and the worst error of each axis (A,) in the unit of the kind."""
    stored, worst = np.empty(values.shape, grid.pack(np.zeros((0, values.shape[1]))).dtype), np.zeros(values.shape[1])
    for at in range(0, len(values), BLOCK):
        exact = in_unit(values[at : at + BLOCK], source)
        stored[at : at + BLOCK] = grid.pack(exact)
        error = np.abs(exact - grid.unpack(stored[at : at + BLOCK]))
        worst = np.fmax(worst, np.fmax.reduce(error, axis=0, initial=0.0))
    return stored, worst


def in_unit(values: NDArray[Any], sensor: Sensor) -> Floats:
    """Samples as recorded in the unit of the kind."""
    converted: Floats = values.astype(np.float64) * sensor.scale + sensor.offset
    return converted
