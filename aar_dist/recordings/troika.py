"""TROIKA (IEEE Signal Processing Cup 2015): wrist PPG and acceleration, chest ECG, 125 Hz, heart rate as the target.

    Training_data/DATA_NN_TYPEMM.mat        sig (6, n): ECG, 2 PPG, acceleration x y z
    Training_data/DATA_NN_TYPEMM_BPMtrace.mat         BPM0 (windows, 1)
    Extra_TrainingData/DATA_SNN_TMM.mat     sig (6, n)          BPM_SNN_TMM.mat
    TestData/TEST_SNN_TMM.mat               sig (5, n): no ECG  TrueBPM/True_SNN_TMM.mat

The rows tell which sensors there are, so a test file has no ``ecg``. BPM0 holds a heart rate for each window of 8 s,
2 s after the one before; see :func:`target` for how that becomes a label.

Units: the published notes give the rate and the wiring, and no unit. Acceleration comes in 1,024 steps of 0.0078 from
-3.9936 on, with a length of 0.83 to 0.94 where the arm is still: g, by a 10-bit sensor of +-4 g that nobody has
calibrated. ECG and PPG have no scale: `arbitrary`, as written.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.converter import About, Converter, Job, Options, Take
from aar_dist.recordings.write import SensorData

RATE_HZ = 125.0
WINDOW_S, HOP_S = 8, 2
LABEL_RATE_HZ = 1.0
TEST_ROWS = ("ppg",) * 2 + ("acc",) * 3
ROWS = {5: TEST_ROWS, 6: ("ecg", *TEST_ROWS)}
"""Rows of ``sig`` -> the sensor that each belongs to."""


@dataclass(frozen=True)
class Names:
    """One form of the published names."""

    signal: re.Pattern[str]
    """Its group is the subject: ``01`` … in the training set, ``S01`` … in the test set: other people."""
    trace: str
    """File of the heart rates, with the groups of the name."""
    beside: str = ""
    """Folder of the heart rates, beside the signal's, where they have one of their own."""


NAMES = (
    Names(re.compile(r"DATA_(\d+)_(TYPE\d+)\.mat"), "DATA_{0}_{1}_BPMtrace.mat"),
    Names(re.compile(r"DATA_(S\d+)_(T\d+)\.mat"), "BPM_{0}_{1}.mat"),
    Names(re.compile(r"TEST_(S\d+)_(T\d+)\.mat"), "True_{0}_{1}.mat", "TrueBPM"),
)


def plan(folder: Path, options: Options) -> Sequence[Job]:
    """A job for each recording. Subject S04 has one in the extra training set and one in the test set."""
    jobs = []
    for path in sorted(folder.rglob("*.mat")):
        for names in NAMES:
            if match := names.signal.fullmatch(path.name):
                folder_of_traces = path.parents[1] / names.beside if names.beside else path.parent
                trace = folder_of_traces / names.trace.format(*match.groups())
                jobs.append(Job(path.name, partial(_read, path, match[1], trace)))
    if not jobs:
        raise RecordingError(
            f"{options.source}: holds no DATA_NN_TYPEMM.mat or TEST_SNN_TMM.mat; give the folder above Training_data"
        )
    return jobs


def read_matrix(path: Path, name: str) -> NDArray[np.float64]:
    """A matrix of numbers of a MATLAB file."""
    if not path.is_file():
        raise RecordingError(f"{path}: no such file; it belongs to the published set")
    try:
        held = scipy.io.loadmat(path)
    except Exception as error:  # scipy raises a dozen kinds for a damaged file
        raise RecordingError(f"{path}: not readable as a MATLAB file ({error}); download it again") from error
    value = held.get(name)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf" or value.ndim != 2:
        names = ", ".join(n for n in held if not n.startswith("__"))
        raise RecordingError(f"{path}: has no matrix {name!r}; it has {names or 'nothing'}")
    return value.astype(np.float64)


def target(bpm: NDArray[np.float64], n: int) -> NDArray[np.float32]:
    """Heart rate [1/min] of every second of n samples: that of the window whose middle is nearest.

    Shape (ceil(n / 125),). Windows overlap by 6 s and a second has one label, so the average over a window of 8 s is
    that window's heart rate with its neighbours', weighed 1 2 2 2 1: see docs/recordings.md for how near it comes.
    Seconds after the last window are NaN.
    """
    middle = np.arange(int(np.ceil(n / RATE_HZ))) + 0.5
    nearest = np.rint((middle - WINDOW_S / 2) / HOP_S).astype(int).clip(0, len(bpm) - 1)
    covered = middle < (len(bpm) - 1) * HOP_S + WINDOW_S
    return np.where(covered, bpm[nearest], np.nan).astype(np.float32)


def _read(path: Path, subject: str, trace: Path) -> list[Take]:
    signal = read_matrix(path, "sig")
    if len(signal) not in ROWS:
        raise RecordingError(
            f"{path}: sig has {len(signal)} rows, expected 6 (ECG, 2 PPG, 3 acceleration) or 5 (without ECG)"
        )
    return [
        Take(
            source=path.name,
            species="human",
            subject=subject,
            sensors=_sensors(signal),
            label=target(_read_bpm(trace, signal.shape[1]), signal.shape[1]),
            label_rate_hz=LABEL_RATE_HZ,
            classes=None,
            location="wrist",
        )
    ]


def _read_bpm(path: Path, n: int) -> NDArray[np.float64]:
    """(windows,), checked against the number of windows in n samples."""
    bpm = read_matrix(path, "BPM0").reshape(-1)
    windows = int((n / RATE_HZ - WINDOW_S) // HOP_S) + 1
    if len(bpm) != windows:
        raise RecordingError(
            f"{path}: holds {len(bpm)} heart rates, but the recording has {windows} windows of {WINDOW_S} s every "
            f"{HOP_S} s; it belongs to another recording, or one of them is cut short"
        )
    if not ((bpm > 0) & np.isfinite(bpm)).all():
        raise RecordingError(f"{path}: holds a heart rate that is not a positive number; download it again")
    return bpm


def _sensors(signal: NDArray[np.float64]) -> dict[str, SensorData]:
    rows = np.array(ROWS[len(signal)])
    return {str(name): _sensor(str(name), signal[rows == name].T) for name in sorted(set(rows))}


def _sensor(name: str, values: NDArray[Any]) -> SensorData:
    axes = {"acc": ("x", "y", "z"), "ppg": ("1", "2"), "ecg": ("chest",)}[name]
    units = "g" if name == "acc" else "arbitrary"
    return SensorData(values=values.astype(np.float32), rate_hz=RATE_HZ, units=units, axes=axes)


CONVERTER = Converter(
    name="troika",
    dataset=lambda options: "troika",
    plan=plan,
    about=About(
        what="TROIKA, IEEE Signal Processing Cup 2015: heart rate from the wrist during exercise",
        layout="Training_data/DATA_NN_TYPEMM.mat with …_BPMtrace.mat, Extra_TrainingData/DATA_SNN_TMM.mat with BPM_…, "
        "TestData/TEST_SNN_TMM.mat with TrueBPM/True_SNN_TMM.mat",
        sensors="ppg (2 channels, green, arbitrary) and acc (g) on the wrist, ecg (chest, arbitrary)",
        rate="125 Hz",
        labels="target: heart rate [1/min] of windows of 8 s every 2 s, as one value a second",
        who="20 people, 23 recordings of 3.4 to 5.4 minutes",
        licence="copyright with the authors; free for academic research that cites Zhang, Pi and Liu 2015 "
        "(10.1109/TBME.2014.2359372)",
        source="the Signal Processing Cup 2015 of the IEEE Signal Processing Society; see publisher",
        watch="the 10 test recordings have no ecg. S04 is in the extra training set and in the test set: one subject. "
        "01 … 12 and S01 … S08 are other people. ECG is clipped at -1024. No units are published: acceleration "
        "reads 0.83 to 0.94 at rest. Read with windows of 8 s, windows.hop_s 2",
    ),
)
