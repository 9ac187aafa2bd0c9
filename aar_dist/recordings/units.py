"""One unit for each kind of sensor.

("acc", "m/s^2") -> 1 / 9.80665 [g]        value in g = factor * value as written
"""

from difflib import get_close_matches
from typing import Literal, get_args

import numpy as np

from aar_dist.base.errors import RecordingError

Kind = Literal["acc", "gyr", "mag", "ecg", "ppg", "other"]

STANDARD_GRAVITY = 9.80665
COUNTS = frozenset({"counts", "count", "raw", "lsb", "adu"})
"""Units that say nothing about the physical size of a step; they need ``scale``."""

ARBITRARY = "arbitrary"
CANONICAL: dict[str, str] = {
    "acc": "g",
    "gyr": "rad/s",
    "mag": "uT",
    "ecg": "mV",
    "ppg": ARBITRARY,
    "other": "as written",
}
"""The unit that the stream hands on."""

_ACC = {"g": 1.0, "G": 1.0, "mg": 1e-3, "m/s^2": 1 / STANDARD_GRAVITY}
_ACC |= dict.fromkeys(("m/s2", "m/s/s", "m.s^-2", "ms^-2", "m/s**2"), 1 / STANDARD_GRAVITY)
_GYR = {"rad/s": 1.0, "rad.s^-1": 1.0, "mrad/s": 1e-3}
_GYR |= dict.fromkeys(("deg/s", "deg.s^-1", "dps", "deg/sec"), np.pi / 180)
_GYR |= {"mdps": np.pi / 180_000}
_MAG = {"uT": 1.0, "nT": 1e-3, "mT": 1e3, "T": 1e6, "G": 100.0, "gauss": 100.0, "mG": 0.1}
# Published ECG often has no scale at all, or is a z-score; it is of use where segments are normalised.
_ECG = {"mV": 1.0, "V": 1e3, "uV": 1e-3, ARBITRARY: 1.0}
FACTORS: dict[str, dict[str, float]] = {"acc": _ACC, "gyr": _GYR, "mag": _MAG, "ecg": _ECG}
"""kind -> unit -> factor to the canonical unit; ppg and other take any unit as it is."""


def kind_of(name: str) -> Kind:
    """The kind of a sensor by the start of its name: ``acc_left`` is ``acc``; anything unknown is ``other``."""
    kinds: tuple[Kind, ...] = get_args(Kind)
    for kind in kinds:
        if name.startswith(kind):
            return kind
    return "other"


def factor_to_canonical(kind: str, unit: str, what: str) -> float:
    """The factor from a unit to the canonical one of its kind; RecordingError, beginning with ``what``, if unknown."""
    spelt = _spelling(unit)
    if kind not in FACTORS or spelt.lower() in COUNTS:
        return 1.0
    known = FACTORS[kind]
    if spelt not in known:
        near = get_close_matches(spelt, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(sorted(known))}"
        raise RecordingError(f"{what}: unknown unit {unit!r} for a sensor of kind {kind}; {hint}")
    return float(known[spelt])


def unit_handed_on(kind: str, unit: str) -> str:
    """The unit of values once they are scaled: the canonical one of the kind, or the written one where none is known.

    A unit that says nothing stays what it is: ECG that is ``arbitrary`` does not become mV.
    """
    spelt = _spelling(unit)
    return CANONICAL[kind] if kind in FACTORS and spelt != ARBITRARY else spelt


def needs_scale(kind: str, unit: str) -> bool:
    """Whether values of this unit are raw counts that mean nothing without ``scale``."""
    return kind in FACTORS and _spelling(unit).lower() in COUNTS


def _spelling(unit: str) -> str:
    """One spelling of the signs that people write in several ways."""
    swaps = {"²": "^2", "⁻": "^-", "¹": "1", "µ": "u", "μ": "u", "°": "deg", "·": ".", " ": ""}
    for old, new in swaps.items():
        unit = unit.replace(old, new)
    return unit.replace("^-^2", "^-2")
