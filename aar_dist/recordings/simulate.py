"""Write a simulated herd: two species, labelled, in the HDF5 contract.

    aar-dist simulate herd                                              # herd/sim_cattle, herd/sim_horses
    aar-dist simulate herd --subjects 12 --hours_per_subject 2 --seed 1

What the animals do and feel is in :mod:`aar_dist.recordings.herd`. These data show that the machinery works; they say
nothing about real animals.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aar_dist.base.cli import Parser
from aar_dist.base.errors import ConfigError, user_entry
from aar_dist.recordings.herd import HERDS, Dice, Signals, Species, simulate_subject
from aar_dist.recordings.out import new_folder
from aar_dist.recordings.write import SensorData, dataset_to_hdf5

START = "2026-01-01T08:00:00"


def simulate_herd(out: Path, species: Species, *, subjects: int, hours_per_subject: float, seed: int) -> list[Path]:
    """The recordings of one species under ``out``; every animal has two pauses, so three recordings."""
    paths: list[Path] = []
    seconds = max(3, round(hours_per_subject * 3600))
    for subject in range(subjects):
        signals = simulate_subject(species, subject, seconds, seed)
        paths += dataset_to_hdf5(
            out,
            dataset=species.dataset,
            species=species.species,
            subject=str(subject),
            sensors=_sensors(species, signals),
            label=signals.label,
            classes=species.classes,
            timestamps_s=_clock(species, subject, len(signals.label), seed),
            location="simulated",
            start_time=START,
        )
    return paths


def _sensors(species: Species, signals: Signals) -> dict[str, SensorData]:
    """As a logger would keep them: int16 counts, or float32 in physical units and the turn rate beside."""
    rate_hz, axes = species.rate_hz, ("x", "y", "z")
    if species.counts_per_g is not None:
        counts = np.clip(np.rint(signals.acc * species.counts_per_g), -32767, 32767).astype(np.int16)
        return {
            "acc": SensorData(values=counts, rate_hz=rate_hz, units="counts", axes=axes, scale=1 / species.counts_per_g)
        }
    acc = SensorData(values=signals.acc.astype(np.float32), rate_hz=rate_hz, units="g", axes=axes)
    gyr = SensorData(values=signals.gyr.astype(np.float32), rate_hz=rate_hz, units="rad/s", axes=axes)
    return {"acc": acc, "gyr": gyr}


def _clock(species: Species, subject: int, n: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Timestamps (n,) [s] with two pauses of 1 to 10 minutes, somewhere in the second and the last third."""
    dice = Dice(seed, f"{species.dataset}/{subject}")
    seconds = np.arange(n) / species.rate_hz
    places = ((np.arange(1, 3) + 0.5 * dice.uniform("pause/where", 2)) * n / 3).astype(int)
    for place, pause_s in zip(places, 60 + 540 * dice.uniform("pause/length", 2), strict=True):
        seconds[place:] += pause_s
    return seconds


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """``aar-dist simulate``."""
    parser = Parser("Write a simulated herd of two species as HDF5.", prog="aar-dist simulate")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for sim_cattle and sim_horses")
    parser.add_argument(
        "--hours_per_subject", type=float, default=0.5, help="recorded time of each animal (default 0.5)"
    )
    parser.add_argument("--subjects", type=int, default=6, help="animals of each species (default 6)")
    parser.add_argument("--seed", type=int, default=578)
    parser.add_argument("--overwrite", action="store_true", help="replace the folders where they exist")
    args = parser.parse_args(argv)
    if args.subjects < 1 or args.hours_per_subject <= 0:
        raise ConfigError("--subjects and --hours_per_subject must be positive")
    for species in HERDS:
        folder = args.out / species.dataset
        with new_folder(folder, overwrite=args.overwrite) as staging:
            paths = simulate_herd(
                staging, species, subjects=args.subjects, hours_per_subject=args.hours_per_subject, seed=args.seed
            )
        hours = args.subjects * args.hours_per_subject
        made = f"{len(paths)} simulated recordings of {args.subjects} animals"
        print(f"{folder}: {made}, {hours:g} h, {species.rate_hz:g} Hz")
