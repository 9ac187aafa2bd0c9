"""From an open HDF5 file to a checked header.

attributes and shapes -> Recording        (parse_header; no sample is read, save for labels written as names)
samples and labels    -> nothing, or RecordingError        (check_file_values)
"""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.names import fault_of_axes, fault_of_dataset, fault_of_sensors, fault_of_text
from aar_dist.recordings.recording import LABEL, UNLABELLED, LabelTrack, Recording, Sensor
from aar_dist.recordings.units import factor_to_canonical, kind_of, needs_scale

STORED = frozenset(kind + size for kind, sizes in {"i": "1248", "u": "1248", "f": "248"}.items() for size in sizes)
"""Types of samples that can be handed on, without their byte order."""
FILE_NAME = re.compile(r"([a-z_]+)_(\w+)_ds_\d+\.(?:hdf5|h5)")
TEXT_UNLABELLED = ("", "unknown")
_BLOCK = 1 << 18


def parse_header(file: h5py.File, path: Path, units: Mapping[str, str]) -> Recording:
    """The header of an open file that is, or will be, called ``path``."""
    fault = fault_of_sensors(sorted(file))
    if fault:
        raise RecordingError(f"{path}: {fault}")
    sensors = tuple(_sensor(file, path, name, units) for name in sorted(file) if name != LABEL)
    if not sensors:
        raise RecordingError(f"{path}: holds no sensor; write at least one data set named acc, gyr, mag, ecg, ppg …")
    recording = Recording(
        path=path,
        dataset=_dataset(file, path),
        subject=_text(file, "subject") or _from_name(path, "subject", 2),
        species=_text(file, "species") or _from_name(path, "species", 1),
        recording=path.stem,
        location=_text(file, "loc") or "",
        start_time=_start_time(file, path),
        sensors=sensors,
        label=_label(file, path, sensors[0].rate_hz) if LABEL in file else None,
        source=_text(file, "source") or "",
    )
    _check_texts(recording)
    _check_durations(recording)
    return recording


def check_file_values(file: h5py.File, recording: Recording) -> None:
    """Reads everything once: every sensor has a value, none is infinite, every label is one of the classes."""
    for sensor in recording.sensors:
        _check_sensor_values(file[sensor.name], f"{recording.path}: {sensor.name}")
    if recording.label is not None and not recording.label.as_text:
        check_labels(file[LABEL][...].reshape(-1), recording)


def text_array(values: Any) -> list[str]:
    """An array of HDF5 strings as Python strings."""
    return [v.decode() if isinstance(v, bytes) else str(v) for v in np.atleast_1d(values).tolist()]


def _sensor(file: h5py.File, path: Path, name: str, units: Mapping[str, str]) -> Sensor:
    data, what = file.get(name), f"{path}: {name}"
    if not isinstance(data, h5py.Dataset):
        raise RecordingError(f"{what}: is not a data set; sensors stand at the top of the file")
    if data.dtype.str[1:] not in STORED:
        raise RecordingError(
            f"{what}: holds {data.dtype}, a sensor holds integers or floats: int8 to int64, uint8 to uint64, "
            "float16, float32 or float64"
        )
    if data.ndim not in (1, 2) or data.size == 0:
        raise RecordingError(f"{what}: has shape {data.shape}, expected (n_samples, n_axes) with at least one sample")
    n_axes = data.shape[1] if data.ndim == 2 else 1
    kind = kind_of(name)
    unit = _text(data, "units") or units.get(kind)
    if not unit:
        raise RecordingError(f"{what}: has no units; set the attribute `units`, or give --{kind}_units")
    scale, offset = _conversion(data, what, kind, unit, n_axes)
    return Sensor(
        name=name,
        kind=kind,
        rate_hz=_rate(data, what, _attr(file, "sr")),
        n_samples=data.shape[0],
        n_axes=n_axes,
        dtype=data.dtype.str,
        units=unit,
        axes=_axes(data, what, n_axes),
        scale=scale,
        offset=offset,
    )


def _dataset(file: h5py.File, path: Path) -> str:
    given = _text(file, "dataset")
    name = given or path.absolute().parent.name
    fault = fault_of_dataset(name)
    if fault:
        raise RecordingError(
            f"{path}: the {'attribute `dataset`' if given else 'folder, which names the data set,'} is {fault}"
        )
    return name


def _check_texts(recording: Recording) -> None:
    told = {"subject": recording.subject, "species": recording.species, "loc": recording.location}
    for name, text in (told | {"source": recording.source}).items():
        fault = fault_of_text(text)
        if fault:
            raise RecordingError(f"{recording.path}: the attribute `{name}` is {fault}")


def _label(file: h5py.File, path: Path, first_rate_hz: float) -> LabelTrack:
    data, what = file.get(LABEL), f"{path}: {LABEL}"
    if not isinstance(data, h5py.Dataset) or data.ndim == 0 or data.size != data.shape[0]:
        raise RecordingError(f"{what}: has shape {getattr(data, 'shape', 'of a group')}, expected (n_samples,)")
    rate_hz, names = _rate(data, what, first_rate_hz), _attr(data, "classes")
    if data.dtype.kind in "OS":
        return LabelTrack(rate_hz=rate_hz, n=data.size, classes=_names_in(data), as_text=True)
    if data.dtype.kind not in "iuf":
        raise RecordingError(f"{what}: holds {data.dtype}, expected class numbers, class names or floats")
    if data.dtype.kind == "f" and names is None:
        return LabelTrack(rate_hz=rate_hz, n=data.size, classes=None)
    if names is None:
        raise RecordingError(f"{what}: integers without names; set the attribute `classes` (a list of strings)")
    if data.dtype.kind == "f":
        raise RecordingError(f"{what}: has `classes` but holds {data.dtype}; write class numbers as integers")
    return LabelTrack(rate_hz=rate_hz, n=data.size, classes=tuple(text_array(names)))


def _names_in(data: h5py.Dataset) -> tuple[str, ...]:
    """The classes that labels written as names use, sorted (the first system keeps no list)."""
    return tuple(sorted(set(text_array(data[...].reshape(-1))) - set(TEXT_UNLABELLED)))


def _conversion(
    data: h5py.Dataset, what: str, kind: str, unit: str, n_axes: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and offset per axis from what is stored to the canonical unit."""
    factor = factor_to_canonical(kind, unit, what)
    if needs_scale(kind, unit) and "scale" not in data.attrs:
        raise RecordingError(f"{what}: raw {unit} without a scale; set the attribute `scale` (and `offset`) per axis")
    scale = _per_axis(data, "scale", 1.0, n_axes, what) * factor
    if not scale.all():
        raise RecordingError(f"{what}: `scale` is 0 for an axis; every axis needs a scale other than 0")
    return tuple(scale.tolist()), tuple((_per_axis(data, "offset", 0.0, n_axes, what) * factor).tolist())


def _per_axis(data: h5py.Dataset, name: str, default: float, n_axes: int, what: str) -> NDArray[np.float64]:
    value = _attr(data, name)
    try:
        numbers = np.asarray(default if value is None else value, np.float64).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if numbers.size not in (1, n_axes) or not np.isfinite(numbers).all():
        raise RecordingError(
            f"{what}: `{name}` is {value!r}, expected one finite number, or one for each of {n_axes} axes"
        )
    return np.broadcast_to(numbers, (n_axes,)).copy()


def _axes(data: h5py.Dataset, what: str, n_axes: int) -> tuple[str, ...]:
    """The declared names of the axes; x, y, z for three and numbers for any other count where none are."""
    value = _attr(data, "axes")
    if value is None:
        return ("x", "y", "z") if n_axes == 3 else tuple(str(i) for i in range(n_axes))
    names = text_array(value)
    if len(names) == 1 and n_axes > 1:
        names = names[0].split(",") if "," in names[0] else list(names[0])
    if len(names) != n_axes:
        raise RecordingError(f"{what}: `axes` names {len(names)} axes, the data have {n_axes}")
    fault = fault_of_axes(names)
    if fault:
        raise RecordingError(f"{what}: `axes`: {fault}")
    return tuple(n.strip() for n in names)


def _rate(data: h5py.Dataset, what: str, default: Any) -> float:
    own = _attr(data, "sr")
    value = default if own is None else own
    if value is None:
        raise RecordingError(f"{what}: has no sampling rate; set the attribute `sr` [Hz] on the sensor or on the file")
    try:
        rate_hz = float(np.asarray(value).reshape(()))
    except (TypeError, ValueError):
        rate_hz = np.nan
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        raise RecordingError(f"{what}: `sr` is {value!r}, expected a positive number of samples a second")
    return rate_hz


def _check_durations(recording: Recording) -> None:
    """Sensors and label last equally long, to within one sample of the slowest."""
    tracks: list[tuple[str, Sensor | LabelTrack]] = [(s.name, s) for s in recording.sensors]
    if recording.label is not None:
        tracks.append((LABEL, recording.label))
    longest = max(tracks, key=lambda t: t[1].duration_s)
    shortest = min(tracks, key=lambda t: t[1].duration_s)
    allowed = 1 / min(t.rate_hz for _, t in tracks)
    if longest[1].duration_s - shortest[1].duration_s > allowed * (1 + 1e-6):
        told = [f"{name} lasts {track.duration_s:g} s" for name, track in (longest, shortest)]
        raise RecordingError(
            f"{recording.path}: {told[0]} but {told[1]}, more than {allowed:g} s apart; "
            "check `sr`, or cut both to the same stretch"
        )


def _check_sensor_values(data: h5py.Dataset, what: str) -> None:
    if data.dtype.kind != "f":
        return
    any_finite = False
    buffer = np.empty((min(_BLOCK, len(data)), *data.shape[1:]), data.dtype.newbyteorder("="))
    for i in range(0, len(data), _BLOCK):
        block = buffer[: min(_BLOCK, len(data) - i)]
        data.read_direct(block, np.s_[i : i + len(block)])
        with np.errstate(over="ignore", invalid="ignore"):
            all_finite = bool(np.isfinite(block.sum()))  # far cheaper than asking each value
        if not all_finite and np.isinf(block).any():
            raise RecordingError(f"{what}: holds an infinite value; write NaN where there is no measurement")
        any_finite = any_finite or all_finite or bool(np.isfinite(block).any())
    if not any_finite:
        raise RecordingError(f"{what}: every value is NaN; leave this sensor or this recording out")


def check_labels(values: NDArray[Any], recording: Recording) -> None:
    """Labels (n,) of a recording that has some: every one is one of its classes, no target is infinite."""
    label, what = recording.label, f"{recording.path}: {LABEL}"
    assert label is not None, "asked of recordings with labels"
    if label.classes is None:
        if np.isinf(values).any():
            raise RecordingError(f"{what}: holds an infinite target; write NaN where there is none")
        return
    wrong = (values < UNLABELLED) | (values >= len(label.classes))
    if wrong.any():
        i = int(wrong.argmax())
        raise RecordingError(
            f"{what}: holds {values[i]} at sample {i}, outside its {len(label.classes)} classes; "
            f"use 0 to {len(label.classes) - 1}, or {UNLABELLED} for unlabelled"
        )


def _start_time(file: h5py.File, path: Path) -> str | None:
    text = _text(file, "start_time")
    if text is None:
        return None
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise RecordingError(
            f"{path}: `start_time` is {text!r}, expected ISO 8601, such as 2024-05-13T14:44:00"
        ) from None
    return text


def _from_name(path: Path, what: str, group: int) -> str:
    named = FILE_NAME.fullmatch(path.name)
    if named is None:
        raise RecordingError(
            f"{path}: does not say its {what}; set the attribute `{what}`, "
            "or name the file <species>_<individual>_ds_<k>.hdf5"
        )
    return named[group]


def _attr(owner: h5py.File | h5py.Dataset, name: str) -> Any:
    return owner.attrs.get(name)


def _text(owner: h5py.File | h5py.Dataset, name: str) -> str | None:
    value = _attr(owner, name)
    return None if value is None else (text_array(value) or [""])[0].strip() or None
