"""A recording as the model wants it: its columns, in their units, at a rate that the model knows.

Recording + Predictor -> Signal -> read(a, b) -> (b - a, C) float32, NaN where nothing was recorded

Days of samples are read stretch by stretch; only a stretch is ever in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from aar_dist.base.errors import ConfigError, RecordingError
from aar_dist.evaluation.predict_model import Predictor
from aar_dist.evaluation.predict_resample import Read, Samples, resampled
from aar_dist.recordings.contract import Recording, Sensor, read_samples

BLOCK = 1 << 18
"""Samples read at once; three hours at 25 Hz."""


@dataclass(frozen=True)
class Signal:
    """What the model is given of one recording; C columns."""

    recording: Recording
    recorded_hz: float
    rate_hz: float
    """After resampling."""
    n: int
    """Samples, at that rate."""
    duration_s: float
    """Recorded; a resampled signal may end up to a sample later."""
    columns: tuple[str | None, ...]
    """Names of the channels, None where the recording has none."""
    read: Read
    """Samples [a, b) of the recording, (b - a, C); NaN where nothing was recorded."""


@dataclass(frozen=True)
class _Part:
    """One sensor of a signal."""

    rate_hz: float
    n: int
    read: Read


def signal_of(recording: Recording, predictor: Predictor, *, sensor: str | None, resample: bool) -> Signal:
    """Choose and check; no sample is read, save for ``normalize: recording``.

    Args:
        sensor: The one to take, where the model takes one at a time and the recording has several.
        resample: Bring a rate that the model was not trained at to the nearest one that it was.

    Raises:
        ConfigError: ``sensor`` for a model that takes several together.
        RecordingError: a sensor or an axis that the model needs is not there, or without statistics, or the rate is
            another.
    """
    chosen = _chosen(recording, predictor, sensor)
    columns, order = _columns(recording, predictor, chosen)
    target_hz = _target_hz(recording, predictor, chosen, resample=resample)
    parts = [_part(recording, predictor, s, target_hz) for s in chosen]
    read = partial(_beside, [part.read for part in parts], order)
    recorded_hz = chosen[0].rate_hz
    n, duration_s = min(part.n for part in parts), min(s.duration_s for s in chosen)
    return Signal(recording, recorded_hz, parts[0].rate_hz, n, duration_s, columns, read)


def _chosen(recording: Recording, predictor: Predictor, sensor: str | None) -> list[Sensor]:
    """The sensors that make up the columns."""
    there = {s.name: s for s in recording.sensors}
    together = predictor.sensors or ()
    if len(together) > 1:
        if sensor:
            raise ConfigError(f"--sensor {sensor}: {predictor.name} takes {', '.join(together)} together; leave it out")
        return [there[name] for name in together if name in there]
    if sensor or together:
        wanted = sensor or together[0]
        if wanted not in there:
            raise RecordingError(f"{recording.path}: has no sensor {wanted!r}; it has {', '.join(there)}")
        return [there[wanted]]
    fit = [s for s in recording.sensors if not predictor.kinds or s.kind in predictor.kinds]
    if not fit:
        raise RecordingError(
            f"{recording.path}: has no sensor of the kind {' or '.join(predictor.kinds)} that {predictor.name} was "
            f"trained on; it has {', '.join(there)}"
        )
    if len(fit) > 1:
        names = ", ".join(s.name for s in fit)
        raise RecordingError(f"{recording.path}: the model takes one of its sensors {names}; choose with --sensor")
    return fit


def _columns(
    recording: Recording, predictor: Predictor, chosen: Sequence[Sensor]
) -> tuple[tuple[str | None, ...], list[int | None]]:
    """The columns as in training, and the place of each among the axes of the chosen sensors."""
    together = predictor.sensors is not None and len(predictor.sensors) > 1
    names = [f"{s.name if together else s.kind}.{axis}".casefold() for s in chosen for axis in s.axes]
    for columns in predictor.columns:
        wanted = [None if name is None else name.casefold() for name in columns]
        if sorted(name for name in wanted if name) == sorted(names):
            return columns, [None if name is None else names.index(name) for name in wanted]
    lacking = [name for name in predictor.sensors or () if name not in {s.name for s in chosen}] if together else []
    if lacking:
        raise RecordingError(
            f"{recording.path}: has no sensor {', '.join(lacking)}, which {predictor.name} needs; it has "
            f"{', '.join(s.name for s in recording.sensors)}"
        )
    known = " or ".join(", ".join(name for name in of if name) for of in predictor.columns)
    raise RecordingError(
        f"{recording.path}: has the channels {', '.join(names)}, {predictor.name} was trained on {known}; "
        "name them with the attribute `axes`, or choose with --sensor"
    )


def _target_hz(recording: Recording, predictor: Predictor, chosen: Sequence[Sensor], *, resample: bool) -> float | None:
    """The rate that all sensors are brought to; None to take them as they are."""
    rates = sorted({s.rate_hz for s in chosen})
    nearest = predictor.nearest_hz(rates[0])
    if len(rates) == 1 and (predictor.any_rate or predictor.knows(rates[0])):
        return None
    if resample:
        return nearest
    found = f"{recording.path}: {', '.join(s.name for s in chosen)} at {' and '.join(f'{r:g}' for r in rates)} Hz"
    why = "its features depend on the rate" if len(rates) == 1 else "it takes all sensors at one rate"
    raise RecordingError(
        f"{found}, but {predictor.name} was trained at {', '.join(f'{r:g}' for r in predictor.rates_hz)} Hz and {why}; "
        f"--resample brings the recording to {nearest:g} Hz"
    )


def _part(recording: Recording, predictor: Predictor, sensor: Sensor, target_hz: float | None) -> _Part:
    scale, zero = np.array(sensor.scale), np.array(sensor.offset)
    if predictor.statistics or predictor.normalize == "recording":
        known = predictor.statistics
        mean, std = known.of(recording, sensor) if known else _statistics(recording, sensor)
        scale, zero = scale / std, (zero - mean) / std
    read = partial(_scaled, recording, sensor, scale.astype(np.float32), zero.astype(np.float32))
    if target_hz is None:
        return _Part(sensor.rate_hz, sensor.n_samples, read)
    return _Part(*resampled(read, sensor.n_samples, sensor.rate_hz, target_hz))


def _scaled(recording: Recording, sensor: Sensor, scale: Samples, zero: Samples, start: int, stop: int) -> Samples:
    """Samples in the unit of the kind, computed as the stream does."""
    stored = read_samples(recording, sensor, start, stop).astype(np.float32)
    values: Samples = np.where(np.isfinite(stored), stored * scale + zero, np.float32(np.nan))
    return values


def _statistics(recording: Recording, sensor: Sensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each axis over the recording, in the unit of the kind; deviation 1 where it has none."""
    count, mean, square = (np.zeros(sensor.n_axes) for _ in range(3))
    for start in range(0, sensor.n_samples, BLOCK):
        x = read_samples(recording, sensor, start, start + BLOCK).astype(np.float64) * sensor.scale + sensor.offset
        finite = np.isfinite(x)
        n = finite.sum(0)
        here = np.where(finite, x, 0.0).sum(0) / np.maximum(n, 1)
        spread = (np.where(finite, x - here, 0.0) ** 2).sum(0)
        total = np.maximum(count + n, 1)
        square += spread + (here - mean) ** 2 * count * n / total
        mean += (here - mean) * n / total
        count += n
    variance = square / np.maximum(count, 1)
    return mean, np.where(variance > 0, np.sqrt(variance), 1.0)


def _beside(reads: Sequence[Read], order: Sequence[int | None], start: int, stop: int) -> Samples:
    """The columns in the model's order, (n, C)."""
    axes = np.concatenate([read(start, stop) for read in reads], axis=1)
    nothing = np.full(len(axes), np.nan, np.float32)
    return np.stack([nothing if i is None else axes[:, i] for i in order], axis=1)
