"""MotionSense, A_DeviceMotion: 24 people with a phone in the front pocket of the trousers, 50 Hz, 6 activities.

    A_DeviceMotion_data/<activity>_<trial>/sub_<person>.csv: a running number and 12 columns
    data_subjects_info.csv: one line for each person

What is taken:

- ``acc``: gravity + userAcceleration, in g. The phone's motion service takes the reading of the accelerometer apart
  into these two; their sum is what an accelerometer measures, and what models of accelerometers know. Without gravity,
  sitting and standing look alike.
- ``gravity``, as published, of kind `other`: acc - gravity is the published userAcceleration.
- ``gyr``: rotationRate, in rad/s.
- The attitude is left out: its roll and pitch are those of gravity, its yaw has no fixed zero, and no kind of sensor
  measures it.

The running number is the clock: a number left out would be a gap.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.columns import Columns, read_csv
from aar_dist.recordings.converter import About, Converter, Job, Options, Take
from aar_dist.recordings.names import natural
from aar_dist.recordings.write import SensorData

ACTIVITIES = {
    "dws": "downstairs",
    "ups": "upstairs",
    "wlk": "walking",
    "jog": "jogging",
    "sit": "sitting",
    "std": "standing",
}
CLASSES = tuple(ACTIVITIES.values())
RATE_HZ = 50.0
RUNNING_NUMBER = ""
"""The first column has no name."""
PEOPLE = "data_subjects_info.csv"
_OTHER_FORMS = ("B_Accelerometer_data", "C_Gyroscope_data")
_NAME = re.compile(r"(?P<activity>[a-z]+)_\d+/sub_(?P<person>\d+)\.csv")


def plan(folder: Path, options: Options) -> Sequence[Job]:
    """A job for each person's trial, by activity, trial and person."""
    named = {
        "/".join(path.parts[-2:]): path
        for path in folder.rglob("sub_*.csv")
        if not set(path.parts).intersection(_OTHER_FORMS)
    }
    matches = [m for name in sorted(named, key=natural) if (m := _NAME.fullmatch(name))]
    if not matches:
        raise RecordingError(
            f"{options.source}: holds no <activity>_<trial>/sub_<person>.csv; give A_DeviceMotion_data, packed or not"
        )
    people = read_people(folder)
    return [Job(m[0], partial(_read, named[m[0]], m["activity"], m["person"], people)) for m in matches]


def read_people(folder: Path) -> set[str] | None:
    """The persons of the published table; None where it is not there."""
    path = next(iter(sorted(folder.rglob(PEOPLE))), None)
    return None if path is None else set(read_csv(path, text=("code",))["code"].tolist())


def _read(path: Path, activity: str, person: str, people: set[str] | None) -> list[Take]:
    if activity not in ACTIVITIES:
        raise RecordingError(f"{path}: activity {activity!r} of the folder is none of {', '.join(ACTIVITIES)}")
    if people is not None and person not in people:
        raise RecordingError(f"{path}: person {person} is not in {PEOPLE}; add the line, or correct the name")
    columns = read_csv(path)
    gravity = _axes(columns, "gravity")
    return [
        Take(
            source="/".join(path.parts[-2:]),
            species="human",
            subject=person,
            sensors={
                "acc": _sensor(gravity + _axes(columns, "userAcceleration"), "g"),
                "gravity": _sensor(gravity, "g"),
                "gyr": _sensor(_axes(columns, "rotationRate"), "rad/s"),
            },
            label=np.full(len(columns), CLASSES.index(ACTIVITIES[activity]), np.int16),
            classes=CLASSES,
            timestamps_s=columns.numbers([RUNNING_NUMBER])[:, 0].astype(np.float64) / RATE_HZ,
            location="trouser_pocket",
        )
    ]


def _axes(columns: Columns, name: str) -> NDArray[Any]:
    """(n, 3) float64, so that the sum is rounded once."""
    return np.column_stack([columns.numbers([f"{name}.{axis}"]).astype(np.float64) for axis in "xyz"])


def _sensor(values: NDArray[Any], units: str) -> SensorData:
    return SensorData(values=values.astype(np.float32), rate_hz=RATE_HZ, units=units, axes=("x", "y", "z"))


CONVERTER = Converter(
    name="motionsense",
    dataset=lambda options: "motionsense",
    plan=plan,
    about=About(
        what="MotionSense: people with a phone in the trouser pocket, six activities",
        layout="A_DeviceMotion_data/<activity>_<trial>/sub_<person>.csv, data_subjects_info.csv",
        sensors="acc (g: gravity + userAcceleration), gravity (g), gyr (rad/s)",
        rate="50 Hz",
        labels=f"classes {', '.join(CLASSES)}",
        who="24 people, 360 trials, 1,412,865 rows (7.8 h)",
        licence="MIT",
        source="https://github.com/mmalekzadeh/motion-sense (folder data)",
        watch="sit_5/sub_1 and sit_13/sub_1 are byte-identical: one is left out. Attitude is left out. The phone is an "
        "iPhone, whose accelerometer has the opposite sign of Android's (hapt): -1 g where that reads 1 g",
    ),
)
