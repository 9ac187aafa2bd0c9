"""Six people whose heart rate is what differs: PPG and ECG beat with it, acceleration does not; half have no ECG."""

from pathlib import Path

import numpy as np

from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build

RATE_HZ = 25.0
CHANNELS = ("acc.x", "acc.y", "acc.z", "ecg.chest", "ppg.1", "ppg.2")


def make_heart_shards(root: Path, *, seconds: int = 60, classes: bool = False) -> Path:
    """A heart rate for each second; with ``classes`` poor and good PPG instead, and nothing but one PPG."""
    rng = np.random.default_rng(0)
    name = "but_ppg" if classes else "troika"
    for k in range(6):
        n = round(seconds * RATE_HZ)
        rate = 60 + 10 * k + 5 * rng.random(seconds)
        beat = np.sin(2 * np.pi * np.cumsum(np.repeat(rate, round(RATE_HZ))) / 60 / RATE_HZ)
        waves = {"ppg": (beat[:, None] + 0.1 * rng.normal(size=(n, 2)), ("1", "2"), "arbitrary")}
        label = {"label": rate.astype(np.float32), "label_rate_hz": 1.0}
        if classes:
            poor = np.repeat(np.arange(seconds) // 10 % 2 == 0, round(RATE_HZ))
            noisy = (beat + 2 * poor * rng.normal(size=n))[:, None]
            waves = {"ppg": (noisy, ("intensity",), "arbitrary")}
            label = {"label": (1 - poor).astype(np.int16), "classes": ("poor", "good")}
        elif k % 2:
            waves["ecg"] = (beat[:, None] ** 3, ("chest",), "arbitrary")
        if not classes:
            waves["acc"] = (rng.normal(size=(n, 3)), ("x", "y", "z"), "g")
        sensors = {
            sensor: SensorData(values=values.astype("<f4"), units=units, rate_hz=RATE_HZ, axes=axes)
            for sensor, (values, axes, units) in waves.items()
        }
        dataset_to_hdf5(
            root / "recordings" / name, dataset=name, species="human", subject=f"{k:02}", sensors=sensors, **label
        )
    options = BuildOptions(datasets=(name,), longest_segment_s=10.0)
    return build(root / "recordings", root / name, options, workers=1).folder
