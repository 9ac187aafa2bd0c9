"""What every sample of a data set holds, and what that costs beside the values.

recordings of a data set -> DatasetLayout (members, classes) -> key, JSON and header bytes of each sample
"""

import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.contract import Recording, Sensor
from aar_dist.shards.packing import grid_of

LABEL, JSON = "label.npy", "json"
TAR_BLOCK, NPY_HEADER = tarfile.BLOCKSIZE, 128


@dataclass(frozen=True, kw_only=True)
class SensorColumn:
    """A member that every sample of a data set has."""

    name: str
    kind: str
    axes: tuple[str, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class DatasetLayout:
    """What every sample of one data set holds."""

    sensors: tuple[SensorColumn, ...]
    classes: tuple[str, ...] | None
    """Names of the classes; None where the labels are a regression target."""
    labelled: bool

    @property
    def label_dtype(self) -> str:
        """Classes as int16 (-1 unlabelled), targets as float32 (NaN unlabelled)."""
        return "<f4" if self.classes is None else "<i2"


def clock(recording: Recording) -> Sensor:
    """The slowest sensor: boundaries on its samples fall on those of any multiple of its rate."""
    return min(recording.sensors, key=lambda s: s.rate_hz)


def layouts_of(recordings: Sequence[Recording]) -> dict[str, DatasetLayout]:
    """The members of each data set: the union over its recordings, which must agree on axes and classes' kind."""
    layouts = {}
    for dataset in sorted({r.dataset for r in recordings}):
        members = [r for r in recordings if r.dataset == dataset]
        layouts[dataset] = DatasetLayout(
            sensors=_sensor_columns(members),
            classes=_classes(members),
            labelled=any(r.label is not None for r in members),
        )
    return layouts


def _sensor_columns(recordings: Sequence[Recording]) -> tuple[SensorColumn, ...]:
    columns: dict[str, SensorColumn] = {}
    for recording in recordings:
        for s in recording.sensors:
            column = columns.setdefault(
                s.name, SensorColumn(name=s.name, kind=s.kind, axes=tuple(s.axes), dtype=np.dtype(s.dtype).str)
            )
            if column.axes != tuple(s.axes):
                raise RecordingError(
                    f"{recording.path}: {s.name} has axes {list(s.axes)}, other recordings of {recording.dataset} have "
                    f"{list(column.axes)}; name them alike or make two data sets"
                )
    return tuple(columns[name] for name in sorted(columns))


def _classes(recordings: Sequence[Recording]) -> tuple[str, ...] | None:
    labelled = [r for r in recordings if r.label is not None]
    kinds = {r.label.classes is None for r in labelled if r.label}
    if len(kinds) > 1:
        raise RecordingError(
            f"{labelled[0].dataset}: some recordings carry classes and some a target; make two data sets"
        )
    if True in kinds:
        return None
    names = dict.fromkeys(c for r in labelled if r.label and r.label.classes for c in r.label.classes)
    return tuple(names)


def label_rate(recording: Recording) -> float:
    """Rate of a chunk's labels [Hz]; a recording without labels is unlabelled on its slowest sensor's clock."""
    return recording.label.rate_hz if recording.label is not None else clock(recording).rate_hz


def sample_key(recording: Recording, start: int) -> str:
    """Name of the sample that begins at this tick; a key ends at its first dot, so it has none."""
    return f"{stem(recording)}-{start:09d}"


def stem(recording: Recording) -> str:
    """The part of the keys that tells the recording."""
    return recording.recording.replace(".", "_")


def header(name: str) -> bytes:
    """Tar header of a member without content; longer for long or foreign names."""
    return tarfile.TarInfo(name).tobuf(tarfile.PAX_FORMAT)


def padded(size: int) -> int:
    """Bytes of a payload in the tar."""
    return -(-size // TAR_BLOCK) * TAR_BLOCK


def overhead(layout: DatasetLayout, recording: Recording) -> int:
    """Bytes of a sample of this recording beside its values and their .npy headers."""
    members = [f"{column.name}.npy" for column in layout.sensors] + [LABEL] * layout.labelled + [JSON]
    text = json.dumps(description(layout, recording, "train", 0.0))
    return sum(len(header(f"{sample_key(recording, 0)}.{member}")) for member in members) + padded(len(text))


def description(layout: DatasetLayout, recording: Recording, split: str, start_s: float) -> dict[str, Any]:
    """The sample's JSON: the same keys and types in every sample of a data set."""
    return {
        "dataset": recording.dataset,
        "species": recording.species,
        "subject": recording.subject,
        "recording": recording.recording,
        "location": recording.location,
        "start_time": recording.start_time or "",
        "split": split,
        "start_s": start_s,
        "label_rate_hz": label_rate(recording),
        "classes": list(layout.classes or ()),
        "sensors": {column.name: _sensor_description(column.name, column.axes, recording) for column in layout.sensors},
    }


def _sensor_description(name: str, axes: tuple[str, ...], recording: Recording) -> dict[str, Any]:
    sensor = next((s for s in recording.sensors if s.name == name), None)
    return {
        "rate_hz": sensor.rate_hz if sensor else 0.0,
        "units": sensor.units if sensor else "",
        "axes": list(axes),
        "packing": sensor.dtype if sensor and grid_of(sensor.dtype, sensor.scale, sensor.offset) else "",
        "scale": list(sensor.scale) if sensor else [0.0] * len(axes),
        "zero": list(sensor.offset) if sensor else [0.0] * len(axes),
    }
