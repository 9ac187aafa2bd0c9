"""Any CSV or Parquet files, described by a YAML.

    aar-dist convert table SOURCE OUT --yaml configs/convert/motionsense.yaml

A file is one recording, or one for each run of rows with the same subject where the subject is a column; timestamps
split it further. The keys of the YAML are those of :class:`aar_dist.recordings.layout.Layout`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import ConfigError, RecordingError
from aar_dist.recordings.columns import Columns, read_csv, read_parquet
from aar_dist.recordings.converter import About, Converter, Job, Options, Take
from aar_dist.recordings.layout import From, LabelLayout, Layout, TimeLayout, read_layout
from aar_dist.recordings.write import SensorData, encode_labels

PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def plan(folder: Path, options: Options) -> Sequence[Job]:
    """A job for each file of the glob."""
    layout = _layout(options)
    paths = sorted(p for p in folder.glob(layout.glob) if p.is_file())
    if not paths:
        raise RecordingError(f"{options.source}: no file matches the glob {layout.glob!r}")
    return [Job(p.relative_to(folder).as_posix(), partial(read_takes, p, folder, layout)) for p in paths]


def _layout(options: Options) -> Layout:
    if options.yaml is None:
        raise ConfigError("--yaml: is missing; `table` needs the YAML that describes the files")
    return read_layout(options.yaml)


def read_takes(path: Path, folder: Path, layout: Layout, *, need_label: bool = True) -> list[Take]:
    """What one file below ``folder`` has recorded. Without ``need_label``, a file may lack the column of the labels."""
    columns = _columns(path, layout)
    if not need_label and layout.label and layout.label.column and layout.label.column not in columns:
        layout = replace(layout, label=None)
    file = _File(path.relative_to(folder).as_posix(), columns, layout)
    return [file.take(start, stop) for start, stop in file.runs()]


class _File:
    """One file, read and translated once, to be taken apart by subject."""

    def __init__(self, name: str, columns: Columns, layout: Layout) -> None:
        self.name, self.columns, self.layout = name, columns, layout
        self.groups = _groups(name, layout)
        self.sensors = {sensor: columns.numbers(s.columns) for sensor, s in layout.sensors.items()}
        self.label = _label(columns, self.groups, layout.label)
        self.times = _times(columns, layout.timestamps)

    def runs(self) -> list[tuple[int, int]]:
        """Stretches of rows of one subject."""
        if self.layout.subject.column is None:
            return [(0, len(self.columns))]
        subject = self.columns.text(self.layout.subject.column)
        cuts = (np.flatnonzero(subject[1:] != subject[:-1]) + 1).tolist()
        return list(pairwise([0, *cuts, len(subject)]))

    def take(self, start: int, stop: int) -> Take:
        """Rows [start, stop), which are of one subject."""
        layout = self.layout
        return Take(
            source=self.name,
            species=self._one(layout.species, "species", start),
            subject=self._one(layout.subject, "subject", start),
            sensors={name: self._sensor(name, start, stop) for name in layout.sensors},
            label=None if self.label is None else self.label[start:stop],
            classes=tuple(layout.label.classes) if layout.label and layout.label.classes else None,
            timestamps_s=None if self.times is None else self.times[start:stop],
            max_step_s=layout.timestamps.max_step_s if layout.timestamps else None,
            location=self._one(layout.location, None, start) or None,
            start_time=self._one(layout.start_time, None, start) or _iso_start(self.columns, layout.timestamps, start),
        )

    def _sensor(self, name: str, start: int, stop: int) -> SensorData:
        told = self.layout.sensors[name]
        return SensorData(
            values=self.sensors[name][start:stop],
            rate_hz=self.layout.rate_hz,
            units=told.units,
            axes=tuple(told.axes or told.columns),
            scale=told.scale,
            offset=told.offset,
        )

    def _one(self, where: From, needed: str | None, row: int) -> str:
        """The value at a row; empty where there is none, unless it is needed."""
        value = where.value or self.groups.get(where.path or "", "")
        if where.column:
            value = str(self.columns.text(where.column)[row])
        if needed and not value:
            raise RecordingError(
                f"{self.columns.path}: {needed} is empty at row {row}; key {needed} of the YAML says where it is"
            )
        return value


def _columns(path: Path, layout: Layout) -> Columns:
    if path.suffix == ".parquet":
        return read_parquet(path)
    text = [w.column for w in (layout.subject, layout.species, layout.location, layout.start_time) if w.column]
    if layout.label and layout.label.column and layout.label.classes:
        text.append(layout.label.column)
    if layout.timestamps and layout.timestamps.unit == "iso":
        text.append(layout.timestamps.column)
    return read_csv(path, text=text, separator=layout.separator, decimal=layout.decimal)


def _groups(name: str, layout: Layout) -> dict[str, str]:
    """The named groups of ``path`` in the name of a file."""
    if layout.path is None:
        return {}
    match = re.search(layout.path, name)
    if match is None:
        raise RecordingError(f"{name}: does not match path {layout.path!r}; narrow the glob or mend the expression")
    return match.groupdict("")


def _label(columns: Columns, groups: Mapping[str, str], label: LabelLayout | None) -> NDArray[Any] | None:
    if label is None:
        return None
    if label.column and label.classes is None:
        return columns.numbers([label.column])[:, 0].astype(np.float32)
    names = (
        columns.text(label.column) if label.column else np.full(len(columns), groups[label.path or ""], dtype=object)
    )
    unique, place = np.unique(names.astype(str), return_inverse=True)
    meant = np.array([label.map.get(str(u), str(u)) for u in unique], dtype=object)[place]
    try:
        return encode_labels(meant.tolist(), label.classes or (), label.unlabelled)
    except RecordingError as error:
        raise RecordingError(f"{columns.path}: {error} (keys label.map, label.unlabelled)") from error


def _times(columns: Columns, layout: TimeLayout | None) -> NDArray[np.float64] | None:
    """(n,) seconds."""
    if layout is None:
        return None
    if layout.unit == "iso":
        stamps = _iso(columns, layout.column)
        return np.array([(stamp - stamps[0]).total_seconds() for stamp in stamps])
    values = columns[layout.column]
    if values.dtype.kind not in "iuf":
        raise RecordingError(
            f"{columns.path}: column {layout.column!r} holds {str(values[0])!r}, not {layout.unit}; "
            "key timestamps.unit of the YAML is `iso` for dates and times"
        )
    seconds: NDArray[np.float64] = np.asarray(values, np.float64) / PER_SECOND[layout.unit]
    return seconds


def _iso_start(columns: Columns, layout: TimeLayout | None, start: int) -> str | None:
    if layout is None or layout.unit != "iso":
        return None
    return _iso(columns, layout.column)[start].isoformat()


def _iso(columns: Columns, name: str) -> list[datetime]:
    """The dates and times of a column, all with a time zone (in UTC) or all without."""
    values = columns[name]
    what = f"{columns.path}: column {name!r}"
    try:
        if values.dtype.kind == "M":
            times = values.astype("datetime64[us]").astype(str).tolist()
            stamps = [datetime.fromisoformat(text + "+00:00" * columns.has_zone(name)) for text in times]
        else:
            stamps = [datetime.fromisoformat(text) for text in values.tolist()]
    except (TypeError, ValueError) as error:
        raise RecordingError(f"{what}: {error}; expected ISO dates and times") from error
    with_zone = [stamp.tzinfo is not None for stamp in stamps]
    if any(with_zone) and not all(with_zone):
        raise RecordingError(
            f"{what}: row {with_zone.index(not with_zone[0])} {'lacks' if with_zone[0] else 'has'} a time zone, unlike "
            "the rows before it; give all of them one, or none"
        )
    return [stamp.astimezone(UTC) if stamp.tzinfo else stamp for stamp in stamps]


CONVERTER = Converter(
    name="table",
    dataset=lambda options: _layout(options).dataset,
    plan=plan,
    takes=("yaml",),
    about=About(
        what="any CSV or Parquet files, described by a YAML of yours",
        layout="as --yaml says (docs/recordings.md, configs/convert/)",
        sensors="as described: columns, units, scale",
        rate="as described",
        labels="as described: classes or a target",
        who="as described",
        licence="yours",
        source="yours",
        watch="a rate or a unit that is not told is an error",
    ),
)
