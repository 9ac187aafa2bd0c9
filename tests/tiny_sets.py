"""Recordings of noise that tests build shard sets from."""

from pathlib import Path

import numpy as np

from aar_dist.recordings.write import SensorData, dataset_to_hdf5

LONGEST_S = 1.0
CLASSES = ("rest", "walk", "run")


def write_dataset(
    root: Path, name: str, *, rate: float, seconds: dict[str, list[float]], dtype="<f4", gyr=False
) -> None:
    """Recordings of ``seconds[subject]`` each; every value tells its subject, recording and sample."""
    rng = np.random.default_rng(sum(map(ord, name)))
    for subject, durations in seconds.items():
        for k, duration in enumerate(durations):
            n = round(duration * rate)
            values = rng.normal(size=(n, 3))
            values = (values * 1000).astype(dtype) if dtype == "<i2" else values.astype(dtype)
            scale = 0.001 if dtype == "<i2" else None
            of = {"rate_hz": rate, "axes": ("x", "y", "z")}
            sensors = {"acc": SensorData(values=values, units="g", scale=scale, **of)}
            if gyr:
                sensors["gyr"] = SensorData(values=rng.normal(size=(n, 3)).astype("<f4"), units="rad/s", **of)
            labels = np.repeat(np.arange(-1, n // 37 + 1) % 4 - 1, 37)[:n]
            dataset_to_hdf5(
                root / name,
                dataset=name,
                species="cow",
                subject=subject,
                sensors=sensors,
                label=labels.astype(np.int16),
                classes=CLASSES,
                first_index=k,
            )
