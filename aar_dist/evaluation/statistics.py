"""What a window looks like in a few numbers for each channel: the features of the simple baselines.

    values, valid (n, T, C), rate_hz (n,) -> features (n, C * FEATURES)

Over the valid samples of a channel: mean, deviation, least, greatest, quartiles, energy, mean step, crossings of the
mean, and of the spectrum of what is left without the mean the strongest frequency, its share and the centre.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NAMES = (
    "mean", "std", "min", "q25", "median", "q75", "max", "energy", "step", "crossings_hz", "peak_hz", "peak_share",
    "centre_hz",
)  # fmt: skip
CHUNK = 4096
"""Windows computed at once."""


def features(
    values: NDArray[np.float32], valid: NDArray[np.bool_], rate_hz: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(n, C * len(NAMES)) float32, channel by channel; 0 for a channel without a valid sample."""
    parts = [
        _features(values[i : i + CHUNK], valid[i : i + CHUNK], rate_hz[i : i + CHUNK])
        for i in range(0, len(values), CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, values.shape[2] * len(NAMES)), np.float32)


def _features(
    values: NDArray[np.float32], valid: NDArray[np.bool_], rate_hz: NDArray[np.float64]
) -> NDArray[np.float32]:
    x = np.where(valid, values.astype(np.float64), np.nan).transpose(0, 2, 1)  # (n, C, T)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a channel of NaN only becomes 0 below
        centred = np.nan_to_num(x - np.nanmean(x, axis=2, keepdims=True))
        quartiles = np.nanquantile(x, [0, 0.25, 0.5, 0.75, 1], axis=2)
        found = [
            np.nanmean(x, axis=2),
            np.nanstd(x, axis=2),
            *quartiles,
            np.nanmean(x**2, axis=2),
            np.nanmean(np.abs(np.diff(x, axis=2)), axis=2),
            _crossings(centred) / np.maximum((~np.isnan(x)).sum(2), 1) * rate_hz[:, None],
            *_spectrum(centred, rate_hz),
        ]
    table: NDArray[np.float32] = np.nan_to_num(np.stack(found, axis=2)).reshape(len(x), -1).astype(np.float32)
    return table


def _crossings(centred: Floats) -> Floats:
    """Changes of sign, (n, C); samples at exactly 0 (the mean, or none at all) are passed over."""
    sign = np.sign(centred)
    place = np.where(sign != 0, np.arange(sign.shape[2]), 0)
    held = np.take_along_axis(sign, np.maximum.accumulate(place, axis=2), axis=2)
    crossings: Floats = (held[..., 1:] * held[..., :-1] < 0).sum(2).astype(np.float64)
    return crossings


def _spectrum(centred: Floats, rate_hz: Floats) -> tuple[Floats, Floats, Floats]:
    """Strongest frequency [Hz], its share of the power, centre of the power [Hz]; each (n, C)."""
    power = np.abs(np.fft.rfft(centred, axis=2)) ** 2
    power[..., 0] = 0.0
    total = np.maximum(power.sum(2), 1e-30)
    hz = np.arange(power.shape[2]) / centred.shape[2] * rate_hz[:, None]  # (n, F)
    peak = power.argmax(2)
    return (
        np.take_along_axis(hz, peak, axis=1),
        power.max(2) / total,
        (power * hz[:, None]).sum(2) / total,
    )
