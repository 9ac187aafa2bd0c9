"""HAPT: the raw recordings of UCI HAR's experiment, 30 people, waist, 50 Hz, 6 activities and 6 transitions.

    RawData/{acc,gyro}_expNN_userMM.txt    x y z
    RawData/labels.txt                     experiment user activity first last

Label bounds count samples from 1 and include the last; what no label covers (27 %) stays unlabelled. About 6 % of the
accelerometer rows repeat the row before: the phone answered before it had measured anew. They are kept, as published.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.converter import About, Converter, Job, Options, Take
from aar_dist.recordings.recording import UNLABELLED
from aar_dist.recordings.write import SensorData

RATE_HZ = 50.0
CLASSES = (
    "WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING",
    "STAND_TO_SIT", "SIT_TO_STAND", "SIT_TO_LIE", "LIE_TO_SIT", "STAND_TO_LIE", "LIE_TO_STAND",
)  # fmt: skip
_NAME = re.compile(r"acc_exp(\d+)_user(\d+)\.txt")
Spans = list[tuple[int, int, int]]


def plan(folder: Path, options: Options) -> Sequence[Job]:
    """A job for each experiment."""
    paths = sorted(p for p in folder.rglob("acc_exp*.txt") if _NAME.fullmatch(p.name))
    if not paths:
        raise RecordingError(f"{options.source}: holds no RawData/acc_expNN_userMM.txt; give the folder above RawData")
    labels = read_published_labels(paths[0].with_name("labels.txt"))
    return [Job(p.name, partial(_read, p, labels)) for p in paths]


def read_published_labels(path: Path) -> dict[tuple[int, int], Spans]:
    """(experiment, user) -> [(class, first, end)], counted from 0, the end excluded."""
    spans: dict[tuple[int, int], Spans] = {}
    for experiment, user, activity, first, last in read_numbers(path, 5).astype(int).tolist():
        if not 1 <= activity <= len(CLASSES):
            raise RecordingError(
                f"{path}: activity {activity} of experiment {experiment} is none of 1 to {len(CLASSES)}"
            )
        spans.setdefault((experiment, user), []).append((activity - 1, first - 1, last))
    return spans


def label_samples(spans: Spans, n: int, what: str) -> NDArray[np.int16]:
    """(n,) class numbers, -1 where no span lies or two contradict each other."""
    label = np.full(n, UNLABELLED, np.int16)
    taken = np.zeros(n, bool)
    for number, first, end in spans:
        if not 0 <= first < end <= n:
            raise RecordingError(f"{what}: a label runs from sample {first + 1} to {end}, the recording has {n}")
        clash = taken[first:end] & (label[first:end] != number)
        label[first:end] = np.where(clash, UNLABELLED, number)
        taken[first:end] = True
    return label


def read_numbers(path: Path, columns: int) -> NDArray[np.float64]:
    """A table of numbers (n, columns), separated by blanks."""
    if not path.is_file():
        raise RecordingError(f"{path}: no such file; it belongs to the published set")
    try:
        values = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise RecordingError(f"{path}: not a table of numbers: {error}") from error
    if values.shape[1] != columns:
        raise RecordingError(f"{path}: has {values.shape[1]} columns, expected {columns}")
    return values


def _read(path: Path, labels: Mapping[tuple[int, int], Spans]) -> list[Take]:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    experiment, user = match[1], match[2]
    sensors = {"acc": _sensor(path, "g"), "gyr": _sensor(path.with_name(path.name.replace("acc", "gyro")), "rad/s")}
    spans = labels.get((int(experiment), int(user)))
    if spans is None:
        raise RecordingError(f"{path}: labels.txt has no line for experiment {experiment} of user {user}")
    return [
        Take(
            source=path.name,
            species="human",
            subject=user,
            sensors=sensors,
            label=label_samples(spans, len(sensors["acc"].values), str(path)),
            classes=CLASSES,
            location="waist",
        )
    ]


def _sensor(path: Path, units: str) -> SensorData:
    values: NDArray[Any] = read_numbers(path, 3).astype(np.float32)
    return SensorData(values=values, rate_hz=RATE_HZ, units=units, axes=("x", "y", "z"))


CONVERTER = Converter(
    name="hapt",
    dataset=lambda options: "hapt",
    plan=plan,
    about=About(
        what="HAPT: people with a phone at the waist, activities and transitions",
        layout="RawData/{acc,gyro}_expNN_userMM.txt and RawData/labels.txt",
        sensors="acc (g), gyr (rad/s); waist",
        rate="50 Hz",
        labels=f"classes {', '.join(CLASSES)}",
        who="30 people, 61 recordings (6.2 h)",
        licence="the README of the set forbids commercial use (Reyes-Ortiz et al. 2015); see publisher",
        source="UCI Machine Learning Repository: Smartphone-Based Recognition of Human Activities and Postural "
        "Transitions (https://archive.ics.uci.edu/dataset/341)",
        watch="27 % of the samples carry no label. About 6 % of the accelerometer rows repeat the row before: kept",
    ),
)
