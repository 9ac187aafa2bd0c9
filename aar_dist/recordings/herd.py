"""A simulated herd: what its animals do and what an accelerometer on them would feel.

    seed, subject -> behaviours b(t) -> posture, gait -> acceleration (n, 3) g, turn rate (n, 3) rad/s, class (n,)

The model, in the animal's frame (x forward, y left, z up):

- *Behaviour* is a Markov chain that steps once a second; the mean stay in each is its ``stay_s``.
- *Posture*: pitch and roll of the sensor move towards those of the behaviour with a time constant of 1 s, and wander
  by slow sines. Gravity is what a sensor at rest feels: (sin p, -cos p sin r, cos p cos r) g.
- *Gait*: a phase runs at the stride frequency; up and forward move with its second harmonic (two steps a stride) and
  overtones, sideways with the first. At rest the same term is breathing.
- *Mounting*: one rotation for each animal, the same for all its recordings. *Noise*: white, Gaussian.
- *Traits*: each animal has its own stride frequency and strength, within 10 and 20 % of the species'.
- *Turn rate*: the time derivatives of pitch and roll, in the same mounting.

Every random number is the hash of its address (seed, data set, subject, what, index): none depends on another.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_TAU = 2 * np.pi


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How one behaviour looks to the sensor."""

    name: str
    stay_s: float
    """Mean time until the next behaviour [s]."""
    pitch_deg: float
    stride_hz: float
    strength_g: float
    """Amplitude of the up-and-down movement; forward and sideways are fractions of it."""
    overtone: float = 0.3
    """Amplitude of the fourth harmonic against the second: how hard the step lands."""


@dataclass(frozen=True, kw_only=True)
class Species:
    """A simulated species and the sensors its animals wear."""

    dataset: str
    species: str
    rate_hz: float
    behaviours: tuple[Behaviour, ...]
    counts_per_g: float | None = None
    """Stored as int16 counts of this size; None stores float32 in g, and the turn rate too."""
    noise_g: float = 0.01

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the behaviours, by class number."""
        return tuple(b.name for b in self.behaviours)


CATTLE = Species(
    dataset="sim_cattle",
    species="sim_cow",
    rate_hz=25.0,
    counts_per_g=4096.0,
    behaviours=(
        Behaviour(name="resting", stay_s=60, pitch_deg=5, stride_hz=0.25, strength_g=0.01, overtone=0.0),
        Behaviour(name="ruminating", stay_s=60, pitch_deg=15, stride_hz=0.55, strength_g=0.05, overtone=0.5),
        Behaviour(name="grazing", stay_s=60, pitch_deg=-55, stride_hz=0.6, strength_g=0.15, overtone=0.6),
        Behaviour(name="walking", stay_s=30, pitch_deg=-10, stride_hz=0.8, strength_g=0.25),
    ),
)
HORSES = Species(
    dataset="sim_horses",
    species="sim_horse",
    rate_hz=100.0,
    noise_g=0.02,
    behaviours=(
        Behaviour(name="standing", stay_s=45, pitch_deg=25, stride_hz=0.2, strength_g=0.01, overtone=0.0),
        Behaviour(name="grazing", stay_s=60, pitch_deg=-60, stride_hz=0.7, strength_g=0.12, overtone=0.6),
        Behaviour(name="walking", stay_s=30, pitch_deg=5, stride_hz=0.95, strength_g=0.25),
        Behaviour(name="trotting", stay_s=20, pitch_deg=20, stride_hz=1.4, strength_g=0.9, overtone=0.2),
        Behaviour(name="galloping", stay_s=15, pitch_deg=10, stride_hz=2.0, strength_g=1.4, overtone=0.25),
    ),
)
HERDS = (CATTLE, HORSES)


@dataclass(frozen=True)
class Dice:
    """Random numbers of one animal: each the hash of its name and place."""

    seed: int
    address: str

    def uniform(self, what: str, n: int) -> Array:
        """(n,) numbers in [0, 1)."""
        from aar_dist.base.hashing import hash_np, uniform_np, word  # imports torch, which `--help` must not wait for

        result: Array = uniform_np(hash_np(self.seed, word(f"{self.address}/{what}"), np.arange(n)))
        return result

    def normal(self, what: str, n: int) -> Array:
        """(n,) standard normal numbers (Box and Muller, 1958)."""
        radius = np.sqrt(-2 * np.log1p(-self.uniform(f"{what}/radius", n)))
        result: Array = radius * np.cos(_TAU * self.uniform(f"{what}/angle", n))
        return result


@dataclass(frozen=True)
class Signals:
    """What the sensors of one animal feel, and what it does."""

    acc: Array
    """(n, 3) g."""
    gyr: Array
    """(n, 3) rad/s."""
    label: NDArray[np.int64]
    """(n,) class number."""


def simulate_subject(species: Species, subject: int, seconds: int, seed: int) -> Signals:
    """One animal for so many seconds; the same for the same arguments."""
    dice = Dice(seed, f"{species.dataset}/{subject}")
    label = np.repeat(behaviour_chain(species, seconds, dice), round(species.rate_hz))
    pitch, roll = _posture(species, label, dice)
    gravity = np.column_stack([np.sin(pitch), -np.cos(pitch) * np.sin(roll), np.cos(pitch) * np.cos(roll)])
    turning = np.column_stack([np.gradient(roll), -np.gradient(pitch), np.zeros_like(pitch)]) * species.rate_hz
    mounting = _rotation(dice)
    n = len(label)
    noise = np.column_stack([dice.normal(f"noise {axis}", n) for axis in "xyz"])
    acc = (gravity + _gait(species, label, dice)) @ mounting.T + species.noise_g * noise
    return Signals(acc=acc, gyr=turning @ mounting.T + 0.5 * species.noise_g * noise[:, ::-1], label=label)


def behaviour_chain(species: Species, seconds: int, dice: Dice) -> NDArray[np.int64]:
    """(seconds,) class numbers: each second the animal goes on, or, once in ``stay_s``, to one of the others."""
    n = len(species.behaviours)
    leaves, chooses = dice.uniform("leave", seconds), dice.uniform("next", seconds)
    chain = np.empty(seconds, np.int64)
    now = int(dice.uniform("first", 1)[0] * n)
    for t in range(seconds):
        if leaves[t] < 1 / species.behaviours[now].stay_s:
            now = (now + 1 + int(chooses[t] * (n - 1))) % n
        chain[t] = now
    return chain


def _posture(species: Species, label: NDArray[np.int64], dice: Dice) -> tuple[Array, Array]:
    """Pitch and roll (n,) [rad]."""
    seconds = np.arange(len(label)) / species.rate_hz
    pitch = np.deg2rad([b.pitch_deg for b in species.behaviours])[label]
    kernel = np.exp(-np.arange(0, 5, 1 / species.rate_hz))
    pitch = _causal_mean(pitch, kernel)
    return pitch + 0.08 * _wander(seconds, "pitch", dice), 0.12 * _wander(seconds, "roll", dice)


def _gait(species: Species, label: NDArray[np.int64], dice: Dice) -> Array:
    """Acceleration of the movement (n, 3) [g]."""
    own = 2 * dice.uniform("traits", 2) - 1
    seconds = np.arange(len(label)) / species.rate_hz
    stride_hz = np.array([b.stride_hz for b in species.behaviours])[label] * (1 + 0.1 * own[0])
    strength = np.array([b.strength_g for b in species.behaviours])[label] * (1 + 0.2 * own[1])
    overtone = np.array([b.overtone for b in species.behaviours])[label]
    phase = _TAU * np.cumsum(stride_hz * (1 + 0.05 * _wander(seconds, "pace", dice))) / species.rate_hz
    strength = strength * (1 + 0.2 * _wander(seconds, "strength", dice))
    up = np.cos(2 * phase) + overtone * np.cos(4 * phase + 1) + 0.4 * overtone * np.cos(6 * phase + 2)
    forward, sideways = 0.5 * np.sin(2 * phase + 0.5), 0.4 * np.sin(phase)
    result: Array = strength[:, None] * np.column_stack([forward, sideways, up])
    return result


def _wander(seconds: Array, what: str, dice: Dice) -> Array:
    """A slow function of time within [-1, 1]: three sines with periods from 7 to 60 s."""
    periods = 7 + 53 * dice.uniform(f"{what}/periods", 3)
    phases = _TAU * dice.uniform(f"{what}/phases", 3)
    result: Array = np.sin(_TAU * seconds[:, None] / periods + phases).mean(axis=1)
    return result


def _causal_mean(values: Array, kernel: Array) -> Array:
    """The weighted mean of each value and those before it; the first stands for all that came earlier."""
    padded = np.concatenate([np.full(len(kernel) - 1, values[0]), values])
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def _rotation(dice: Dice) -> Array:
    """How the sensor sits on the animal: a turn of up to 30 degrees about any axis (Rodrigues' formula)."""
    draw = dice.uniform("mounting", 3)
    z, azimuth, angle = 2 * draw[0] - 1, _TAU * draw[1], np.deg2rad(30) * draw[2]
    x, y = np.sqrt(1 - z * z) * np.cos(azimuth), np.sqrt(1 - z * z) * np.sin(azimuth)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    result: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return result
