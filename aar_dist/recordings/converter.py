"""What a converter is.

plan(folder, options) -> [Job]      one for each published file, nothing read yet but indexes
job.read() -> [Take]                what was recorded, in the contract's terms, or RecordingError
take.write(out, …) -> [Path]        HDF5 recordings, split at gaps
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from aar_dist.base.errors import ConfigError
from aar_dist.recordings.write import SensorData, dataset_to_hdf5


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says beside SOURCE and OUT."""

    source: Path
    """As given: the published archive or folder; an index file may lie beside it."""
    label: str | None = None
    index: Path | None = None
    yaml: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Take:
    """What one published file (or part of it) recorded."""

    source: str
    """The published file, relative to its folder."""
    species: str
    subject: str
    sensors: Mapping[str, SensorData]
    label: NDArray[Any] | None
    classes: tuple[str, ...] | None
    timestamps_s: NDArray[Any] | None = None
    max_step_s: float | None = None
    location: str | None = None
    start_time: str | None = None
    notes: tuple[str, ...] = ()
    """What was met and mended in this file."""

    def write(self, folder: Path, dataset: str, first_index: int) -> list[Path]:
        """The HDF5 recordings of this take."""
        return dataset_to_hdf5(
            folder,
            dataset=dataset,
            species=self.species,
            subject=self.subject,
            sensors=self.sensors,
            label=self.label,
            classes=self.classes,
            timestamps_s=self.timestamps_s,
            max_step_s=self.max_step_s,
            location=self.location,
            start_time=self.start_time,
            source=self.source,
            first_index=first_index,
        )


@dataclass(frozen=True)
class Job:
    """One published file, to be read when its turn comes."""

    name: str
    read: Callable[[], Sequence[Take]]


@dataclass(frozen=True, kw_only=True)
class Converter:
    """One published layout."""

    name: str
    about: Mapping[str, str]
    """What ``--list`` prints: layout, rate, units, classes, licence, where to get it, what is left out."""
    plan: Callable[[Path, Options], Sequence[Job]]
    dataset: Callable[[Options], str]
    """The name of the data set that it makes."""
    disputed: tuple[str, ...] = ()
    """Published files that hold one recording under the names of several animals. Whose it is cannot be told, so they
    are left out, unless duplicates are kept."""
    labels: tuple[str, ...] = ()
    """Choices of ``--label``, the default first; empty where there is only one."""

    def label(self, options: Options) -> str:
        """The chosen label."""
        if options.label is None and self.labels:
            return self.labels[0]
        if options.label not in self.labels:
            choices = " or ".join(self.labels) or "no choice"
            raise ConfigError(f"--label {options.label}: {self.name} offers {choices}")
        return options.label
