"""Arrays or a data frame -> recordings that keep the contract.

    sensors + label + timestamps -> one stretch for each run without a gap -> <species>_<individual>_ds_<k>.hdf5

A file appears under its name only when it is whole and has passed the reader's own checks, and the same input gives
the same bytes.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from aar_dist.base.errors import RecordingError
from aar_dist.base.storage import one_line_errors, remove, staging_name
from aar_dist.recordings.gaps import contiguous_runs
from aar_dist.recordings.header import check_file_values, parse_header
from aar_dist.recordings.recording import LABEL

_SPECIES, _SUBJECT = re.compile(r"[a-z_]+"), re.compile(r"\w+")


class Frame(Protocol):
    """Anything that gives a column by its name: a dict of arrays, a pyarrow Table, a pandas DataFrame."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class SensorData:
    """What one sensor has recorded."""

    values: NDArray[Any]
    """(n, axes), stored in this dtype; NaN where nothing was measured."""
    rate_hz: float
    units: str
    axes: tuple[str, ...] = ()
    scale: ArrayLike | None = None
    """Per axis or for all: value in ``units`` = scale * stored + offset. Raw counts need it (to g, rad/s, uT, mV)."""
    offset: ArrayLike | None = None


@dataclass(frozen=True, kw_only=True)
class SensorColumns:
    """The columns of a data frame that make one sensor; otherwise as :class:`SensorData`."""

    columns: tuple[str, ...]
    rate_hz: float
    units: str
    axes: tuple[str, ...] = ()
    scale: ArrayLike | None = None
    offset: ArrayLike | None = None

    def of(self, frame: Frame) -> SensorData:
        """The sensor with its values, (n, columns)."""
        values = np.column_stack([np.asarray(frame[c]) for c in self.columns])
        axes = self.axes or self.columns
        return SensorData(
            values=values, rate_hz=self.rate_hz, units=self.units, axes=axes, scale=self.scale, offset=self.offset
        )


@dataclass(frozen=True, kw_only=True)
class LabelData:
    """The labels of a recording."""

    values: NDArray[Any]
    """(n,) class numbers (-1 unlabelled), or float targets where ``classes`` is None."""
    rate_hz: float
    classes: tuple[str, ...] | None


def dataset_to_hdf5(
    out_folder: str | Path,
    *,
    dataset: str,
    species: str,
    subject: str,
    sensors: Mapping[str, SensorData | SensorColumns],
    frame: Frame | None = None,
    label: ArrayLike | str | None = None,
    label_rate_hz: float | None = None,
    classes: Sequence[str] | None = None,
    timestamps_s: ArrayLike | str | None = None,
    max_step_s: float | None = None,
    location: str | None = None,
    start_time: str | None = None,
    source: str | None = None,
    first_index: int = 0,
    individual: str | None = None,
) -> list[Path]:
    """Write one file for each stretch without a gap, ``first_index`` the number of the first; returns their paths.

    ``label`` (n,) stands on ``label_rate_hz``, or else on the first sensor's rate. ``timestamps_s`` (n,) are those of
    the first sensor: a step longer than ``max_step_s`` (1.5 sample periods, if not given) is a gap, and every other
    sensor and the label are cut at the same place. With ``frame``, sensors may be :class:`SensorColumns`, and
    ``label`` and ``timestamps_s`` names of columns. ``source`` names the original file;
    ``individual`` stands in the file name where that should not be the subject.
    RecordingError where the result would break the contract.
    """
    given = {name: _sensor_data(name, s, frame) for name, s in sensors.items()}
    if not given:
        raise RecordingError(f"{dataset}, {subject}: no sensors given; a recording needs at least one")
    first = next(iter(given.values()))
    header = _header(dataset, species, subject, loc=location, source=source)
    track = _label_data(_column(label, frame), label_rate_hz or first.rate_hz, classes)
    times = _column(timestamps_s, frame)
    runs = _runs(times, first, max_step_s, f"{dataset}, {subject}")
    staged: dict[Path, Path] = {}
    try:
        for k, (start, stop) in enumerate(runs):
            path = Path(out_folder) / f"{species}_{individual or subject}_ds_{first_index + k}.hdf5"
            offset_s = 0.0 if times is None else float(times[start] - times[0])
            stretch = {
                name: replace(s, values=_cut(s.values, s.rate_hz, start, stop, first)) for name, s in given.items()
            }
            cut = track and replace(track, values=_cut(track.values, track.rate_hz, start, stop, first))
            staged[path] = staging_name(path)
            with one_line_errors(path, staged[path]):
                _write_file(staged[path], path, header | _later(start_time, offset_s), stretch, cut)
        for path, partial in staged.items():
            os.replace(partial, path)
    finally:
        for partial in staged.values():
            remove(partial)
    return list(staged)


def encode_labels(names: Sequence[Any], classes: Sequence[str], unlabelled: Sequence[str] = ("",)) -> NDArray[np.int16]:
    """Class numbers (n,) of names; -1 for the names listed as unlabelled; any other name is a RecordingError."""
    numbers = {c: i for i, c in enumerate(classes)} | dict.fromkeys(unlabelled, -1)
    unique, inverse = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    unknown = [str(u) for u in unique if str(u) not in numbers]
    if unknown:
        raise RecordingError(
            f"label {unknown[0]!r} ({int((inverse == list(unique).index(unknown[0])).sum())} samples) is none of "
            f"{', '.join(classes)}; correct it, map it to one of them, or list it as unlabelled"
        )
    return np.array([numbers[str(u)] for u in unique], np.int16)[inverse]


def _runs(times: NDArray[Any] | None, first: SensorData, max_step_s: float | None, what: str) -> list[tuple[int, int]]:
    if times is None:
        return [(0, len(first.values))]
    if len(times) != len(first.values):
        raise RecordingError(
            f"{what}: {len(times)} timestamps for {len(first.values)} samples; give one for each sample"
        )
    return contiguous_runs(times, first.rate_hz, max_step_s, what)


def _header(dataset: str, species: str, subject: str, **optional: str | None) -> dict[str, str]:
    if not _SPECIES.fullmatch(species):
        raise RecordingError(f"{dataset}: species {species!r} cannot be part of a file name; use a-z and _ only")
    if not _SUBJECT.fullmatch(subject):
        raise RecordingError(f"{dataset}: subject {subject!r} cannot be part of a file name; use letters, digits and _")
    header = {"dataset": dataset, "species": species, "subject": subject}
    return header | {name: text for name, text in optional.items() if text}


def _sensor_data(name: str, sensor: SensorData | SensorColumns, frame: Frame | None) -> SensorData:
    if isinstance(sensor, SensorColumns):
        if frame is None:
            raise RecordingError(f"sensor {name}: given as columns without a frame; pass frame=")
        sensor = sensor.of(frame)
    values = np.asarray(sensor.values)
    return replace(sensor, values=values[:, None] if values.ndim == 1 else values)


def _column(value: ArrayLike | str | None, frame: Frame | None) -> NDArray[Any] | None:
    if isinstance(value, str):
        if frame is None:
            raise RecordingError(f"column {value!r} is named without a frame; pass frame=")
        value = frame[value]
    return None if value is None else np.asarray(value)


def _label_data(values: NDArray[Any] | None, rate_hz: float, classes: Sequence[str] | None) -> LabelData | None:
    """The label as it is stored: int16 where it is class numbers, its own float type where it is a target."""
    if values is None:
        return None
    if classes is not None and values.dtype.kind in "OSU":
        values = encode_labels(values.tolist(), classes)
    if classes is not None and values.dtype.kind in "iu":
        values = np.clip(values, -(2**15), 2**15 - 1).astype(np.int16)
    return LabelData(values=values, rate_hz=rate_hz, classes=None if classes is None else tuple(classes))


def _later(start_time: str | None, offset_s: float) -> dict[str, str]:
    """The attribute ``start_time`` of a stretch that begins ``offset_s`` after the first."""
    if start_time is None or offset_s == 0:
        return {"start_time": start_time} if start_time else {}
    return {"start_time": (datetime.fromisoformat(start_time) + timedelta(seconds=offset_s)).isoformat()}


def _cut(values: NDArray[Any], rate_hz: float, start: int, stop: int, first: SensorData) -> NDArray[Any]:
    """The part of a track that stands beside samples [start, stop) of the first sensor.

    The last stretch takes all that is left, so that tracks of unequal duration are found out.
    """
    last = len(values) if stop == len(first.values) else round(stop * rate_hz / first.rate_hz)
    return values[round(start * rate_hz / first.rate_hz) : last]


def _write_file(
    staged: Path, path: Path, attributes: dict[str, str], sensors: Mapping[str, SensorData], label: LabelData | None
) -> None:
    """One file under its staged name, checked by the reader as what it will be."""
    staged.parent.mkdir(parents=True, exist_ok=True)
    # A fixed format version and no times of creation: the same input gives the same bytes.
    with h5py.File(staged, "w", libver=("v110", "v110")) as file:
        file.attrs.update(attributes)
        for name, sensor in sensors.items():
            _write_sensor(file, name, sensor)
        if label is not None:
            _write_label(file, label)
        check_file_values(file, parse_header(file, path, {}))


def _write_sensor(file: h5py.File, name: str, sensor: SensorData) -> None:
    data = file.create_dataset(name, data=sensor.values, track_times=False)
    data.attrs["sr"] = float(sensor.rate_hz)
    data.attrs["units"] = sensor.units
    if sensor.axes:
        data.attrs["axes"] = list(sensor.axes)
    for attribute, value in (("scale", sensor.scale), ("offset", sensor.offset)):
        if value is not None:
            data.attrs[attribute] = np.asarray(value, np.float64)


def _write_label(file: h5py.File, label: LabelData) -> None:
    data = file.create_dataset(LABEL, data=label.values, track_times=False)
    data.attrs["sr"] = float(label.rate_hz)
    if label.classes is not None:
        data.attrs["classes"] = list(label.classes)
