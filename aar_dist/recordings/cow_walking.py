"""Cattle collars: db-cow-walking (10.3389/fvets.2025.1630083), 10 cows, 10 Hz, 12 behaviours.

    <folder>/<number>_<label>_<cow>_<yyyymmdd>_<hhmmss>.csv: Time and 25 columns of two IMUs (BNO055, MPU9250)

What is taken, and why the rest is not (each is shown by a test on the published files):

- ``acc``: BNO055_A*, m/s². At rest it reads gravity in every file. The MPU9250 accelerometer of the same collar does
  not (7.7 g at rest in the 17 files of cow 1319 of 17 May 2024), so it is left out.
- ``gyr``: MPU9250_G*, deg/s. It agrees with the turn of the published quaternion; BNO055_G*, published as a gyroscope,
  does not (a vector of constant length), so it is left out.
- ``mag``: MPU9250_M*, µT, not calibrated (the hard iron of the collar is in it).
- BNO055_AR* is BNO055_A* turned into the world frame: nothing new. The BNO055 magnetometer and quaternion are raw
  counts without a published scale.

The label is the one in the file name (the folder says less), the start that of the data (one name is wrong by 2.5 min).
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.columns import Columns, read_csv
from aar_dist.recordings.converter import About, Converter, Job, Options, Take
from aar_dist.recordings.write import SensorData, encode_labels

CLASSES = (
    "Drinking", "Grazing", "Licking", "LyingDown", "Pitching", "Resting",
    "Rising", "Scratching", "Shaking", "Standing", "Trotting", "Walking",
)  # fmt: skip
RATE_HZ = 10.0
SENSORS = {"acc": ("BNO055_A", "m/s^2"), "gyr": ("MPU9250_G", "deg/s"), "mag": ("MPU9250_M", "uT")}
_NAME = re.compile(r"(?P<number>\d+)_(?P<label>[A-Za-z]+)_(?P<cow>\d+)_\d{8}_\d{6}\.csv")


def plan(folder: Path, options: Options) -> Sequence[Job]:
    """A job for each file, in the order of their numbers."""
    named = [(m, p) for p in folder.rglob("*.csv") if (m := _NAME.fullmatch(p.name))]
    if not named:
        raise RecordingError(
            f"{options.source}: holds no <number>_<label>_<cow>_<date>_<time>.csv; "
            "give the folder with Grazing, Walking …"
        )
    named.sort(key=lambda found: int(found[0]["number"]))
    return [Job(path.name, partial(_read, path, match["label"], match["cow"])) for match, path in named]


def _read(path: Path, label: str, cow: str) -> list[Take]:
    columns = read_csv(path, text=("Time",))
    times = _times(columns)
    seconds = (times - times[0]) / np.timedelta64(1, "s")
    return [
        Take(
            source=path.name,
            species="cattle",
            subject=cow,
            sensors={name: _sensor(columns, prefix, units) for name, (prefix, units) in SENSORS.items()},
            label=encode_labels([label] * len(columns), CLASSES),
            classes=CLASSES,
            timestamps_s=seconds,
            location="neck",
            start_time=str(times[0].astype("datetime64[ms]")),
        )
    ]


def _times(columns: Columns) -> np.ndarray[tuple[int], np.dtype[np.datetime64]]:
    try:
        return columns["Time"].astype("datetime64[us]")
    except ValueError as error:
        raise RecordingError(f"{columns.path}: Time: {error}; expected yyyy-mm-dd hh:mm:ss.f") from error


def _sensor(columns: Columns, prefix: str, units: str) -> SensorData:
    values = columns.numbers([f"{prefix}{axis}" for axis in "XYZ"])
    return SensorData(values=values, rate_hz=RATE_HZ, units=units, axes=("x", "y", "z"))


CONVERTER = Converter(
    name="cow_walking",
    dataset=lambda options: "cow_walking",
    plan=plan,
    about=About(
        what="cattle collars: ten cows on pasture, twelve behaviours",
        layout="<behaviour>/<number>_<label>_<cow>_<date>_<time>.csv",
        sensors="acc (BNO055, m/s^2), gyr (MPU9250, deg/s), mag (MPU9250, uT, not calibrated); neck collar",
        rate="10 Hz",
        labels=f"classes {', '.join(CLASSES)}",
        who="10 cows, 441 recordings (7 h)",
        licence="not stated; see publisher",
        source="https://github.com/WASP-lab/db-cow-walking (10.3389/fvets.2025.1630083)",
        watch="left out: MPU9250 accelerometer (offset of 7 g in 17 files), BNO055 gyroscope (does not turn with the "
        "cow), world-frame acceleration (derived), BNO055 magnetometer and quaternion (raw counts). One file twice, "
        "eight pairs overlap: kept once. Two cows never rest",
    ),
)
