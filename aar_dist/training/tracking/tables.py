"""Reconstructions in numbers: a few segments of each data set with what was hidden and what was predicted.

batch + prediction -> one row for each channel of each segment -> reconstructions/step_*.json -> a table of W&B
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.base import storage

COLUMNS = ("data set", "channel", "rate [Hz]", "error of hidden", "recorded", "hidden", "predicted")
MOST_SAMPLES = 512
"""Of a segment; the rest is left out of the table."""
DIGITS = 4


def write_table(
    path: Path,
    values: NDArray[np.floating],
    prediction: NDArray[np.floating],
    masked: NDArray[np.bool_],
    valid: NDArray[np.bool_],
    *,
    rate_hz: list[float],
    datasets: list[str],
    channels: list[str],
) -> Path:
    """Write the table of some segments (B, T, C)."""
    rows = [
        _row(values[i, :, j], prediction[i, :, j], masked[i, :, j], valid[i, :, j], [datasets[i], name, rate_hz[i]])
        for i in range(len(values))
        for j, name in enumerate(channels)
        if valid[i, :, j].any()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    return storage.write_text(path, json.dumps({"columns": COLUMNS, "rows": rows}, separators=(",", ":")))


def _row(
    values: NDArray[np.floating],
    prediction: NDArray[np.floating],
    masked: NDArray[np.bool_],
    valid: NDArray[np.bool_],
    about: list[Any],
) -> list[Any]:
    """Lists of numbers as they are drawn: nothing is predicted where the model saw the answer."""
    hidden = masked & valid
    error = float(np.mean((values - prediction)[hidden] ** 2)) if hidden.any() else None
    length = min(MOST_SAMPLES, 1 + int(np.flatnonzero(valid).max()))
    told = [_numbers(values[:length], valid[:length]), hidden[:length].astype(int).tolist()]
    return [*about, _short(error), *told, _numbers(prediction[:length], hidden[:length])]


def _numbers(values: NDArray[np.floating], told: NDArray[np.bool_]) -> list[float | None]:
    return [_short(float(v)) if t else None for v, t in zip(values, told, strict=True)]


def _short(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(f"{value:.{DIGITS}g}")
