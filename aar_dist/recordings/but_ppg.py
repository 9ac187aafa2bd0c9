"""BUT PPG, version 1: 12 people, 48 recordings of 10 s by the camera of a phone, 30 Hz.

    <ID>/<ID>_PPG.hea, .dat     the records of PhysioNet
    or myData.csv               ID RefHR Location Motion Quality "Signal" "Time", separated by blanks
    quality-hr-ann.csv          ID,Quality,HR
    subject-info.csv            ID,Gender,…,Ear/finger,Motion,…

The first three digits of an ID are the person. What is met:

- The annotation files begin with a byte-order mark and list version 2 too (3,888 recordings).
- Values of version 1 are negative; they are kept as published, `arbitrary`.
- The records of version 1 say 300 signals of one sample, and readers that believe it return one sample: they are read
  as one signal of 300.
- ``Time`` in myData.csv runs from 0 to 10 s in 299 steps, as if the last sample were taken at the end of the last
  period: 29.9 Hz. The rate is the published 30 Hz, and a ``Time`` that fits neither is an error.
- ``Motion`` may be two codes, ``2;3``, which is 8 in myData.csv: a class of its own.
- What belongs to version 2 (another phone, another scale, three colours) is left out: myData.csv ends with three of it.
"""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.converter import About, Converter, Job, Options, Take
from aar_dist.recordings.wfdb import read_wfdb
from aar_dist.recordings.write import SensorData

RATE_HZ = 30.0
SIGNALS, ANNOTATIONS, PEOPLE = "myData.csv", "quality-hr-ann.csv", "subject-info.csv"
COLUMNS = {
    SIGNALS: ("ID", "RefHR", "Motion", "Quality", "Signal", "Time"),
    ANNOTATIONS: ("ID", "Quality", "HR"),
    PEOPLE: ("ID", "Ear/finger", "Motion"),
}
VERSION_1 = range(100, 112)
"""Its people: the first three digits of an ID."""
QUALITY = {"0": "poor", "1": "good"}
MOTION = {
    "0": "rest",
    "1": "pressure",
    "2": "moving",
    "3": "walking",
    "4": "coughing",
    "5": "laughing",
    "6": "changing_light",
    "7": "talking",
    "2;3": "moving_and_walking",
}
PLACE = {"0": "ear", "1": "finger"}
_BOTH_CODES = {"2;3": "8"}
_ID = re.compile(r"\d{6}")
Row = Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """One published recording."""

    id: str
    read: Callable[[], NDArray[np.float64]]
    """Samples (n, 1)."""
    told: Row = field(default_factory=dict)
    """What stands beside the samples, by the columns of the annotation files that say it too."""


def plan(folder: Path, options: Options) -> Sequence[Job]:
    """A job for each recording, by ID."""
    root, records = _records(folder, options)
    annotations, people = (_by_id(root / name) for name in (ANNOTATIONS, PEOPLE))
    label = CONVERTER.label(options)
    return [
        Job(
            record.id,
            partial(_read, root, record, annotations.get(record.id), people.get(record.id), label),
            left_out="" if int(record.id[:3]) in VERSION_1 else "version 2",
        )
        for record in records
    ]


def _records(folder: Path, options: Options) -> tuple[Path, list[Record]]:
    """The folder of the annotations, and the recordings: PhysioNet's, or those of myData.csv."""
    headers = [path for path in sorted(folder.rglob("*_PPG.hea")) if _ID.fullmatch(path.parent.name)]
    if headers:
        return headers[0].parents[1], [Record(path.parent.name, partial(_record, path)) for path in headers]
    path = next(iter(sorted(folder.rglob(SIGNALS))), None)
    if path is None:
        raise RecordingError(
            f"{options.source}: holds no <ID>/<ID>_PPG.hea and no {SIGNALS}; give the folder of either"
        )
    rows = _by_id(path, delimiter=" ").items()
    return path.parent, [Record(name, partial(_cells, row, f"{path}: {name}"), _told(row)) for name, row in rows]


def _told(row: Row) -> Row:
    return {"Quality": row["Quality"], "HR": row["RefHR"], "Motion": row["Motion"]}


def _record(header: Path) -> NDArray[np.float64]:
    """(n, 1) samples of a WFDB record of version 1."""
    values, rate_hz = read_wfdb(header)
    if rate_hz != RATE_HZ or 1 not in values.shape:
        raise RecordingError(
            f"{header}: {values.shape[1]} signals at {rate_hz:g} Hz, expected one at {RATE_HZ:g} Hz (version 1)"
        )
    return values.reshape(-1, 1)


def _by_id(path: Path, delimiter: str = ",") -> dict[str, Row]:
    """ID -> row of a table with a header, with or without a byte-order mark."""
    if not path.is_file():
        raise RecordingError(f"{path}: no such file; it belongs to the published set")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        rows = list(reader)
    missing = [name for name in COLUMNS[path.name] if name not in (reader.fieldnames or ())]
    if missing:
        raise RecordingError(f"{path}: has no column {missing[0]!r}; it has {', '.join(reader.fieldnames or ())}")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values() or not _ID.fullmatch(row["ID"]):
            raise RecordingError(
                f"{path}: line {number} is not a whole row with an ID of six digits; download it again"
            )
    return {row["ID"]: row for row in rows}


def _read(root: Path, record: Record, annotation: Row | None, person: Row | None, label: str) -> list[Take]:
    what = f"{root}: {record.id}"
    if annotation is None or person is None:
        raise RecordingError(f"{what}: is not in {ANNOTATIONS if annotation is None else PEOPLE}; download that again")
    published = {**annotation, "Motion": _BOTH_CODES.get(person["Motion"], person["Motion"])}
    for column, value in record.told.items():
        if value != published[column]:
            raise RecordingError(
                f"{what}: {column} is {value} in {SIGNALS}, {published[column]} in the annotations; find out which"
            )
    values = record.read().astype(np.float32)
    target, classes = _label(annotation, person, label, what)
    return [
        Take(
            source=record.id,
            species="human",
            subject=record.id[:3],
            sensors={"ppg": SensorData(values=values, rate_hz=RATE_HZ, units="arbitrary", axes=("intensity",))},
            label=np.full(len(values), target, np.float32 if classes is None else np.int16),
            classes=classes,
            location=_known(PLACE, person["Ear/finger"], what, "Ear/finger"),
        )
    ]


def _cells(row: Row, what: str) -> NDArray[np.float64]:
    """(n, 1) samples of myData.csv; their times fit 30 Hz, to the begin of the last sample or, as there, to its end."""
    try:
        values, times = (np.array(row[name].split(), np.float64) for name in ("Signal", "Time"))
    except ValueError as error:
        raise RecordingError(f"{what}: Signal and Time hold other things than numbers: {error}") from error
    if len(values) != len(times) or not len(values):
        raise RecordingError(f"{what}: {len(values)} samples but {len(times)} times; expected one for each")
    lasts = [(len(values) - back) / RATE_HZ for back in (0, 1)]
    if not np.isclose(times[-1] - times[0], lasts, atol=1e-3).any():
        raise RecordingError(
            f"{what}: {len(values)} samples in {times[-1] - times[0]:g} s; at {RATE_HZ:g} Hz they last {lasts[0]:g} s"
        )
    return values[:, None]


def _label(annotation: Row, person: Row, label: str, what: str) -> tuple[float, tuple[str, ...] | None]:
    """The number of the class with all classes, or a target with None."""
    if label == "heart_rate":
        return _heart_rate(annotation["HR"], what), None
    column = {"quality": "Quality", "motion": "Motion"}[label]
    names = {"quality": QUALITY, "motion": MOTION}[label]
    name = _known(names, (annotation if label == "quality" else person)[column], what, column)
    return tuple(names.values()).index(name), tuple(names.values())


def _heart_rate(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RecordingError(f"{what}: HR is {text!r}, expected a number") from None


def _known(names: Mapping[str, str], code: str, what: str, column: str) -> str:
    if code not in names:
        raise RecordingError(f"{what}: {column} is {code!r}, expected one of {', '.join(names)}")
    return names[code]


CONVERTER = Converter(
    name="but_ppg",
    dataset=lambda options: "but_ppg" if options.label in (None, "quality") else f"but_ppg_{options.label}",
    plan=plan,
    labels=("quality", "heart_rate", "motion"),
    about=About(
        what="Brno University of Technology smartphone PPG, version 1: good or poor signal",
        layout="<ID>/<ID>_PPG.hea and .dat, or myData.csv; quality-hr-ann.csv, subject-info.csv",
        sensors="ppg (arbitrary; the camera of a phone at the finger or the ear)",
        rate="30 Hz",
        labels=f"--label quality: classes {', '.join(QUALITY.values())} (default); --label heart_rate: target [1/min], "
        f"one for each recording; --label motion: classes {', '.join(MOTION.values())}",
        who="12 people, 48 recordings of 10 s (35 good, 13 poor)",
        licence="see publisher",
        source="https://physionet.org/content/butppg (10.13026/tn53-8153)",
        watch="values are negative, as published. The records' headers tell 300 signals of one sample: read as one of "
        "300. Time in myData.csv tells 29.9 Hz: the published rate is taken. Version 2 is left out. 11 of the 13 poor "
        "recordings are those made in motion: quality and motion are nearly one label. Build with "
        "--longest_segment_s 10",
    ),
)
