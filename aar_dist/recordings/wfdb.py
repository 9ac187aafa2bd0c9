"""WFDB records as PhysioNet publishes them: a text header and 16-bit samples. As much of it as our sets use.

<name>.hea    name, signals, rate, samples; then a line for each signal: file, format, gain(baseline)/unit …
<name>.dat    int16, little-endian, the signals of a moment side by side
read_wfdb(<name>.hea) -> (values (n, signals) in the header's units, rate_hz)
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import RecordingError

FORMAT = "16"
_GAIN = re.compile(r"(?P<gain>-?[\d.eE+-]+)(?:\((?P<baseline>-?\d+)\))?(?:/.*)?")
_CHECKSUM = 6
"""Field of a signal line, where the line is that long."""


def read_wfdb(header: Path) -> tuple[NDArray[np.float64], float]:
    """Values (n, signals) and rate [Hz]. RecordingError for another format, a missing gain, or damaged samples."""
    lines = [line.split() for line in _text(header).splitlines() if line.strip() and not line.startswith("#")]
    try:
        n_signals, rate_hz, n = int(lines[0][1]), float(lines[0][2].split("/")[0]), int(lines[0][3])
    except (IndexError, ValueError) as error:
        raise RecordingError(
            f"{header}: its first line does not tell signals, rate and samples; copy it again"
        ) from error
    signals = lines[1 : 1 + n_signals]
    if len(signals) < n_signals or not n_signals:
        raise RecordingError(f"{header}: tells {n_signals} signals and describes {len(signals)}; copy it again")
    files = {signal[0] for signal in signals}
    if len(files) > 1 or any(len(signal) < 3 or signal[1] != FORMAT for signal in signals):
        raise RecordingError(f"{header}: not one file of format {FORMAT} with a gain for each signal; no other is read")
    stored = _samples(header.with_name(files.pop()), n, n_signals)
    try:
        gain, baseline = _conversion(header, signals)
        _check_sums(header, signals, stored)
    except ValueError as error:
        raise RecordingError(f"{header}: {error}; copy it again") from error
    return (stored - baseline) / gain, rate_hz


def _text(path: Path) -> str:
    if not path.is_file():
        raise RecordingError(f"{path}: no such file; it belongs to the published set")
    return path.read_text(encoding="utf-8", errors="replace")


def _samples(path: Path, n: int, n_signals: int) -> NDArray[np.float64]:
    """(n, signals) as stored."""
    stored = np.frombuffer(path.read_bytes() if path.is_file() else b"", np.uint8)
    if len(stored) != 2 * n * n_signals:
        raise RecordingError(f"{path}: has {len(stored)} bytes, its header tells {2 * n * n_signals}; copy it again")
    return stored.view("<i2").reshape(n, n_signals).astype(np.float64)


def _conversion(header: Path, signals: list[list[str]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gain and baseline of each signal; without a baseline, it is the converter's zero (field 5)."""
    gains, baselines = [], []
    for signal in signals:
        told = _GAIN.fullmatch(signal[2])
        gain = float(told["gain"]) if told else 0.0
        if told is None or gain == 0:
            raise RecordingError(
                f"{header}: a signal has the gain {signal[2]!r}: not calibrated, so its unit is not known"
            )
        gains.append(gain)
        baselines.append(float(told["baseline"] or (signal[4] if len(signal) > 4 else 0)))
    return np.array(gains), np.array(baselines)


def _check_sums(header: Path, signals: list[list[str]], stored: NDArray[np.float64]) -> None:
    """The sum of each signal, as 16 bits, against the header."""
    for number, signal in enumerate(signals):
        total = int(stored[:, number].sum())
        if len(signal) > _CHECKSUM and (total - int(signal[_CHECKSUM])) % (1 << 16):
            raise RecordingError(
                f"{header}: the samples of signal {number + 1} do not give its checksum; copy them again"
            )
