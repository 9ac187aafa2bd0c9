"""The HDF5 contract: one contiguous recording is one file.

    <dataset>/<species>_<individual>_ds_<k>.hdf5
        acc*, gyr*, mag*, ecg*, ppg* …   (n_samples, n_axes), attributes units, axes, sr [, scale, offset]
        label                            (n,) integers with `classes` (-1 unlabelled), or floats
    read_recording(path) -> Recording (header only)     read_samples(recording, sensor, a, b) -> (b - a, axes)

Everything that is wrong is a RecordingError that names file, data set and what to do; nothing is guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import RecordingError
from aar_dist.base.storage import is_staging
from aar_dist.recordings.header import check_file_values, check_labels, parse_header, text_array
from aar_dist.recordings.recording import LABEL, UNLABELLED, LabelTrack, Recording, Sensor, open_hdf5

__all__ = [
    "LABEL",
    "UNLABELLED",
    "LabelTrack",
    "Recording",
    "Sensor",
    "check_labels",
    "check_values",
    "find_recordings",
    "raise_together",
    "read_labels",
    "read_recording",
    "read_samples",
    "scan_recordings",
]

NO_UNITS: Mapping[str, str] = MappingProxyType({})
SUFFIXES = (".hdf5", ".h5")
_LISTED = 10


def read_recording(path: str | Path, *, units: Mapping[str, str] = NO_UNITS) -> Recording:
    """The header of one file, checked against the contract. ``units``: kind -> unit for sensors that do not say."""
    path = Path(path)
    with open_hdf5(path) as file:
        return parse_header(file, path, units)


def check_values(recording: Recording) -> None:
    """What only the data can tell: a sensor without any value, an infinite value, a label outside the classes."""
    with open_hdf5(recording.path) as file:
        check_file_values(file, recording)


def read_samples(recording: Recording, sensor: Sensor | str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Samples [start, stop) of a sensor as stored, (n, axes), in its own dtype and unit."""
    name = sensor if isinstance(sensor, str) else sensor.name
    with open_hdf5(recording.path) as file:
        values: NDArray[Any] = file[name][start:stop]
    return values[:, None] if values.ndim == 1 else values


def read_labels(recording: Recording, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Labels [start, stop) on the label's own clock, (n,): class numbers (integers, -1 unlabelled) or float targets."""
    if recording.label is None:
        raise RecordingError(f"{recording.path}: has no {LABEL}")
    with open_hdf5(recording.path) as file:
        values: NDArray[Any] = file[LABEL][start:stop].reshape(-1)
    if not recording.label.as_text:
        return values
    number = {name: i for i, name in enumerate(recording.label.classes or ())}
    return np.array([number.get(name, UNLABELLED) for name in text_array(values)], np.int32)


@overload
def find_recordings(
    folder: str | Path, units: Mapping[str, str] = ..., *, skip_bad: Literal[False] = ...
) -> list[Recording]: ...


@overload
def find_recordings(
    folder: str | Path, units: Mapping[str, str] = ..., *, skip_bad: Literal[True]
) -> tuple[list[Recording], list[RecordingError]]: ...


def find_recordings(
    folder: str | Path, units: Mapping[str, str] = NO_UNITS, *, skip_bad: bool = False
) -> list[Recording] | tuple[list[Recording], list[RecordingError]]:
    """The recordings of a folder by name. All bad ones raise one error together, or come back beside the good ones."""
    good, bad = scan_recordings(folder, units)
    if skip_bad:
        return good, bad
    raise_together(bad, f"{len(bad)} of {len(good) + len(bad)} recordings in {folder} cannot be used")
    return good


def scan_recordings(
    folder: str | Path, units: Mapping[str, str] = NO_UNITS
) -> tuple[list[Recording], list[RecordingError]]:
    """The good recordings of a folder by name, and an error for each bad one. No recording at all is an error."""
    folder = Path(folder)
    if not folder.is_dir():
        raise RecordingError(f"{folder}: no such folder; give the folder of one data set, with its .hdf5 recordings")
    if is_staging(folder.resolve()):
        raise RecordingError(f"{folder}: is unfinished work of a conversion that was stopped; convert again")
    paths = sorted(p for p in folder.iterdir() if _is_recording(p))
    if not paths:
        raise RecordingError(f"{folder}: holds no .hdf5 recording; `aar-dist convert --list` tells how to make some")
    good: list[Recording] = []
    bad: list[RecordingError] = []
    for path in paths:
        try:
            recording = read_recording(path, units=units)
            _check_same_classes(recording, good)
            good.append(recording)
        except RecordingError as error:
            bad.append(error)
    return _share_text_classes(good), bad


def _is_recording(path: Path) -> bool:
    """Whether a file is named as a finished recording."""
    return path.suffix in SUFFIXES and not path.name.startswith(".") and not is_staging(path)


def raise_together(errors: Sequence[RecordingError], heading: str) -> None:
    """One error for several: the heading, the first ten, how many more. Nothing where there is none."""
    if errors:
        more = f"; and {len(errors) - _LISTED} more" if len(errors) > _LISTED else ""
        listed = "; ".join(str(e) for e in errors[:_LISTED])
        raise RecordingError(f"{heading}: {listed}{more}. Mend them, or go on without them: --skip_bad")


def _check_same_classes(recording: Recording, others: Sequence[Recording]) -> None:
    """Class 3 must mean the same in every recording of a data set."""
    first = next((o for o in others if o.label is not None and not o.label.as_text), None)
    mine = recording.label
    if first is None or first.label is None or mine is None or mine.as_text or mine.classes == first.label.classes:
        return
    raise RecordingError(
        f"{recording.path}: {LABEL} has other `classes` than {first.path.name}; write the same list in every recording"
    )


def _share_text_classes(recordings: list[Recording]) -> list[Recording]:
    """Where labels are names, the classes of a data set are those of all its recordings, sorted."""
    names = {c for r in recordings if r.label and r.label.as_text for c in r.label.classes or ()}
    return [
        replace(r, label=replace(r.label, classes=tuple(sorted(names)))) if r.label and r.label.as_text else r
        for r in recordings
    ]
