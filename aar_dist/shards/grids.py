"""Which grid a sensor of a data set is packed on, and which of its recordings.

    recordings -> Extent of each (read once, many workers) -> Grid of each axis -> recordings as they will be stored

No value moves by more than ``max_error`` of the axis's standard deviation, that of the median recording. A recording
whose spikes would need a coarser grid stays as it was recorded, and the others keep the fine one.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.recordings.contract import Recording, Sensor, read_samples
from aar_dist.shards.packing import LAST, Floats, Format, Grid, can_be_packed, in_unit, packed
from aar_dist.shards.statistics import extremes, moments

Flags = NDArray[np.bool_]

MARGIN = 1  # step that the zero may lie beside the middle
HALF_DIGITS, HALF_TOP = 11, 14  # float16: significant bits; the largest values get this exponent
READ = 1 << 20  # samples read at a time


@dataclass(frozen=True, kw_only=True)
class Extent:
    """What one sensor of one recording holds, per axis (A,), in the unit of its kind; NaN where it holds nothing."""

    low: Floats
    high: Floats
    mean: Floats
    std: Floats


@dataclass(frozen=True, kw_only=True)
class SensorPacking:
    """How one sensor of a data set is packed, and what that was decided by."""

    dataset: str
    sensor: str
    units: str
    grid: Grid
    span: tuple[float, ...]
    """Range of the packed recordings, per axis in these units."""
    std: tuple[float, ...]
    """Of the median recording."""
    recordings: int
    kept: tuple[str, ...]
    """Recordings that stay as recorded, because they do not fit the grid."""


@dataclass(frozen=True)
class _Found:
    """A sensor that may be packed, and what it holds."""

    recording: int
    sensor: Sensor
    extent: Extent


def pack_recordings(
    recordings: Sequence[Recording], formats: Mapping[str, Format], max_error: float, run: Callable[..., list[Any]]
) -> tuple[list[Recording], list[SensorPacking]]:
    """The recordings as they will be stored; ``formats``: kind of sensor -> how. ``run`` is that of a session."""
    wanted = [(i, s) for i, r in enumerate(recordings) for s in r.sensors if s.kind in formats and can_be_packed(s)]
    extents = run(_extent_of, [(recordings[i], sensor) for i, sensor in wanted])
    groups: dict[tuple[str, str], list[_Found]] = {}
    for (i, sensor), extent in zip(wanted, extents, strict=True):
        groups.setdefault((recordings[i].dataset, sensor.name), []).append(_Found(i, sensor, extent))
    stored, told = list(recordings), []
    for (dataset, name), found in sorted(groups.items()):
        grid, fits = choose_grid(formats[found[0].sensor.kind], [f.extent for f in found], max_error)
        chosen = [f for f, fit in zip(found, fits, strict=True) if fit]
        for f in chosen:
            stored[f.recording] = _with(stored[f.recording], packed(f.sensor, grid))
        told.append(
            SensorPacking(
                dataset=dataset,
                sensor=name,
                units=packed(found[0].sensor, grid).units,
                grid=grid,
                span=_span([f.extent for f in chosen], len(grid.scale)),
                std=tuple(_median(std) for std in np.array([f.extent.std for f in found]).T),
                recordings=len(chosen),
                kept=tuple(recordings[f.recording].recording for f, fit in zip(found, fits, strict=True) if not fit),
            )
        )
    return stored, told


def _extent_of(item: tuple[Recording, Sensor]) -> Extent:
    return extent_of(*item)


def _with(recording: Recording, sensor: Sensor) -> Recording:
    return replace(recording, sensors=tuple(sensor if s.name == sensor.name else s for s in recording.sensors))


def _span(extents: Sequence[Extent], n_axes: int) -> tuple[float, ...]:
    if not extents:
        return (0.0,) * n_axes
    high, low = np.fmax.reduce([e.high for e in extents]), np.fmin.reduce([e.low for e in extents])
    return tuple(np.nan_to_num(high - low).tolist())


def description(packing: SensorPacking, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What dataset.json tells of it: the grid and the worst error among the rows of its chunks, per axis in the unit
    of the kind and as shares of the axis's standard deviation and range."""
    where = (packing.dataset, packing.sensor)
    errors = [row["pack_error"] for row in rows if row["pack_error"] and (row["dataset"], row["sensor"]) == where]
    worst = np.max(errors, axis=0).tolist() if errors else [0.0] * len(packing.std)
    return {
        "dataset": packing.dataset,
        "sensor": packing.sensor,
        "units": packing.units,
        **asdict(packing.grid),
        "recordings": packing.recordings,
        "kept": list(packing.kept),
        "error": worst,
        "error_of_std": _share(worst, packing.std),
        "error_of_range": _share(worst, packing.span),
    }


def _share(error: Sequence[float], of: Sequence[float]) -> list[float]:
    return [e / o if o > 0 else 0.0 for e, o in zip(error, of, strict=True)]


def extent_of(recording: Recording, sensor: Sensor) -> Extent:
    """Reads the sensor once."""
    parts = list(_extents(recording, sensor))
    n, mean, std, low, high = (np.array([part[k] for part in parts]) for k in range(5))
    count = np.maximum(n.sum(0), 1)
    centre = mean[0] + (n * (mean - mean[0])).sum(0) / count
    variance = (n * (std**2 + (mean - centre) ** 2)).sum(0) / count
    nothing = n.sum(0) == 0
    return Extent(
        low=np.fmin.reduce(low, axis=0),
        high=np.fmax.reduce(high, axis=0),
        mean=np.where(nothing, np.nan, centre),
        std=np.where(nothing, np.nan, np.sqrt(variance)),
    )


def _extents(recording: Recording, sensor: Sensor) -> Iterator[tuple[NDArray[Any], ...]]:
    """n, mean, std, low, high of each stretch, in the unit of the kind."""
    for start in range(0, sensor.n_samples, READ):
        values = read_samples(recording, sensor, start, start + READ)
        found = moments(values)
        ends = [in_unit(end[None], sensor)[0] for end in extremes(values)]
        mean, std = in_unit(found.mean[None], sensor)[0], found.std * np.abs(sensor.scale)
        yield found.n, mean, std, np.fmin(*ends), np.fmax(*ends)


def choose_grid(form: Format, extents: Sequence[Extent], max_error: float) -> tuple[Grid, list[bool]]:
    """The finest grid for the recordings that fit one within the error, and which of them do."""
    low, high, mean, std = (np.array([getattr(e, x) for e in extents]) for x in ("low", "high", "mean", "std"))
    choose = _whole_steps if form == "int16" else _halves
    axes = [
        _Axis(low[:, a], high[:, a], _median(mean[:, a]), max_error * _median(std[:, a])) for a in range(len(low[0]))
    ]
    reach = [choose(axis, np.ones(len(extents), bool))[2] for axis in axes]
    fits = np.logical_and.reduce(reach)
    chosen = [choose(axis, fits) for axis in axes]
    return Grid(format=form, scale=tuple(c[0] for c in chosen), zero=tuple(c[1] for c in chosen)), fits.tolist()


@dataclass(frozen=True)
class _Axis:
    """One axis of all recordings of a data set."""

    low: Floats
    high: Floats
    centre: float
    allowed: float
    """Error."""

    def ends(self, chosen: Flags) -> tuple[float, float]:
        """Least and largest of the chosen recordings; both NaN where they hold nothing."""
        return float(np.fmin.reduce(self.low[chosen], initial=np.nan)), float(
            np.fmax.reduce(self.high[chosen], initial=np.nan)
        )


def _median(of_recordings: Floats) -> float:
    """Over the recordings that hold something; 0 where none does."""
    there = of_recordings[~np.isnan(of_recordings)]
    return float(np.median(there)) if there.size else 0.0


def _whole_steps(axis: _Axis, chosen: Flags) -> tuple[float, float, Flags]:
    """int16: step and zero for the chosen recordings; which of all fit steps of at most twice the allowed error."""
    widest = _power(2 * axis.allowed, math.floor) if axis.allowed else 0.0
    reach = (LAST - MARGIN) * widest
    fits = ~((axis.low < axis.centre - reach) | (axis.high > axis.centre + reach))
    first, last = axis.ends(chosen & fits)
    if not first < last:  # one value only, or none
        return 1.0, 0.0 if math.isnan(first) else first, fits
    step = _power((last - first) / (2 * (LAST - MARGIN)), math.ceil)
    return step, round((first + last) / 2 / step) * step, fits


def _halves(axis: _Axis, chosen: Flags) -> tuple[float, float, Flags]:
    """float16: its steps grow with the distance from zero, which is 0 where the axis crosses that."""
    widest = _power(axis.allowed, math.floor) if axis.allowed else 0.0
    crosses = _median(axis.low) <= 0 <= _median(axis.high)
    zero = axis.centre if not widest else 0.0 if crosses else round(axis.centre / widest) * widest
    distance = np.fmax(np.abs(axis.low - zero), np.abs(axis.high - zero))
    fits = ~(distance > 0) | (distance < widest * 2.0 ** (HALF_DIGITS + 1))
    largest = float(np.fmax.reduce(distance[chosen & fits], initial=np.nan))
    return _power(largest, math.floor) / 2.0**HALF_TOP if largest > 0 else 1.0, zero, fits


def _power(x: float, rounding: Callable[[float], int]) -> float:
    """The power of two below, or above, a positive number."""
    return float(2.0 ** rounding(math.log2(x)))
