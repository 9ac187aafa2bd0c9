"""BUT PPG, version 1: 12 people, 48 recordings of 10 s by the camera of a phone, 30 Hz.

    myData.csv              ID RefHR Location Motion Quality "Signal" "Time", separated by blanks
    quality-hr-ann.csv      ID,Quality,HR
    subject-info.csv        ID,Gender,…,Ear/finger,Motion,…

The first three digits of an ID are the person. What is met:

- The annotation files begin with a byte-order mark and list version 2 too (3,888 recordings).
- Values of version 1 are negative; they are kept as published, `arbitrary`.
- ``Time`` of version 1 runs from 0 to 10 s in 299 steps, as if the last sample were taken at the end of the last
  period: 29.9 Hz. The rate is the published 30 Hz, and a ``Time`` that fits neither is an error.
- ``Motion`` may be two codes, ``2;3``, which is 8 in myData.csv: a class of its own.
- myData.csv ends with three recordings of version 2 (another phone, another scale): left out.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.converter import About, Converter, Job, Options, Take
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
QUALITY = ("poor", "good")
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
Row = Mapping[str, str]


def plan(folder: Path, options: Options) -> Sequence[Job]:
    """A job for each recording of myData.csv."""
    path = next(iter(sorted(folder.rglob(SIGNALS))), None)
    if path is None:
        raise RecordingError(f"{options.source}: holds no {SIGNALS}; give the folder with it and {ANNOTATIONS}")
    annotations, people = (_by_id(path.with_name(name)) for name in (ANNOTATIONS, PEOPLE))
    label = CONVERTER.label(options)
    return [
        Job(
            record,
            partial(_read, path, row, annotations.get(record), people.get(record), label),
            left_out="" if int(record[:3]) in VERSION_1 else "a recording of version 2",
        )
        for record, row in _by_id(path, delimiter=" ").items()
    ]


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
        if None in row or None in row.values() or not re.fullmatch(r"\d{6}", row["ID"]):
            raise RecordingError(
                f"{path}: line {number} is not a whole row with an ID of six digits; download it again"
            )
    return {row["ID"]: row for row in rows}


def _read(path: Path, row: Row, annotation: Row | None, person: Row | None, label: str) -> list[Take]:
    what = f"{path}: {row['ID']}"
    if annotation is None or person is None:
        raise RecordingError(f"{what}: is not in {ANNOTATIONS if annotation is None else PEOPLE}; download that again")
    for ours, theirs in ((row["Quality"], annotation["Quality"]), (row["RefHR"], annotation["HR"])):
        if ours != theirs:
            raise RecordingError(f"{what}: says {ours} where {ANNOTATIONS} says {theirs}; find out which is right")
    values = _signal(row, what)
    target, classes = _label(annotation, person, row, label, what)
    return [
        Take(
            source=row["ID"],
            species="human",
            subject=row["ID"][:3],
            sensors={
                "ppg": SensorData(
                    values=values.astype(np.float32), rate_hz=RATE_HZ, units="arbitrary", axes=("intensity",)
                )
            },
            label=np.full(len(values), target, np.float32 if classes is None else np.int16),
            classes=classes,
            location=_known(PLACE, person["Ear/finger"], what, "Ear/finger"),
        )
    ]


def _signal(row: Row, what: str) -> NDArray[np.float64]:
    """(n, 1) samples; their times fit 30 Hz, counted to the last sample or, as in version 1, to the end of it."""
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


def _label(annotation: Row, person: Row, row: Row, label: str, what: str) -> tuple[float, tuple[str, ...] | None]:
    """The number of the class with all classes, or a target with None."""
    if label == "heart_rate":
        return float(annotation["HR"]), None
    if label == "quality":
        names = {str(number): name for number, name in enumerate(QUALITY)}
        return QUALITY.index(_known(names, annotation["Quality"], what, "Quality")), QUALITY
    code, classes = person["Motion"], tuple(MOTION.values())
    if row["Motion"] != _BOTH_CODES.get(code, code):
        raise RecordingError(f"{what}: Motion is {row['Motion']} where {PEOPLE} says {code}; find out which is right")
    return classes.index(_known(MOTION, code, what, "Motion")), classes


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
        layout="myData.csv (the signals as text), quality-hr-ann.csv, subject-info.csv",
        sensors="ppg (arbitrary; the camera of a phone at the finger or the ear)",
        rate="30 Hz",
        labels=f"--label quality: classes {', '.join(QUALITY)} (default); --label heart_rate: target [1/min], one for "
        f"each recording; --label motion: classes {', '.join(MOTION.values())}",
        who="12 people, 48 recordings of 10 s (35 good, 13 poor)",
        licence="see publisher",
        source="https://physionet.org/content/butppg (10.13026/tn53-8153); the signals there are WFDB records, not the "
        "myData.csv that is read here",
        watch="values are negative. Time in myData.csv tells 29.9 Hz; the published rate is taken. Recordings of "
        "version 2 are left out. 11 of the 13 poor recordings are those made in motion: quality and motion are nearly "
        "one label. Build with --longest_segment_s 10",
    ),
)
