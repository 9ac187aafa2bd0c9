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
    rate_hz: float | None = None
    """Where the publisher tells none."""
    sensor: str | None = None
    units: str | None = None


@dataclass(frozen=True, kw_only=True)
class About:
    """What ``--list`` tells of a published set. Each field is a sentence or a list for people."""

    what: str
    layout: str
    """On disk, as published."""
    sensors: str
    """With units, and where they were worn."""
    rate: str
    labels: str
    """Classes or target."""
    who: str
    """Subjects and recordings."""
    licence: str
    source: str
    """The publisher's address."""
    watch: str
    """What is left out, mended, or easily got wrong."""


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
    label_rate_hz: float | None = None
    """Where it is not the first sensor's."""
    individual: str | None = None
    """What stands in the file name for the subject, where the publisher's name tells more, such as ``train``."""
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
            label_rate_hz=self.label_rate_hz,
            classes=self.classes,
            individual=self.individual,
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
    left_out: str = ""
    """Why it is told and not read; empty for all that are read."""


@dataclass(frozen=True, kw_only=True)
class Converter:
    """One published layout."""

    name: str
    about: About
    plan: Callable[[Path, Options], Sequence[Job]]
    dataset: Callable[[Options], str]
    """The name of the data set that it makes."""
    disputed: tuple[str, ...] = ()
    """Published files that hold one recording under the names of several animals. Whose it is cannot be told, so they
    are left out, unless duplicates are kept."""
    keeps_twins: bool = False
    """Whether results are compared by the publisher's counts: what is there twice is then told and kept."""
    labels: tuple[str, ...] = ()
    """Choices of ``--label``, the default first; empty where there is only one."""
    takes: tuple[str, ...] = ()
    """Names of the options that this layout needs or allows beside ``label``."""

    def check(self, options: Options) -> None:
        """ConfigError where an option is given that says nothing about this layout, or a label that it has not."""
        if options.label is not None:
            self.label(options)
        for name in ("index", "yaml", "rate_hz", "sensor", "units"):
            if name not in self.takes and getattr(options, name) is not None:
                raise ConfigError(f"--{name}: {self.name} does not need it; leave it out (see --list {self.name})")

    def label(self, options: Options) -> str:
        """The chosen label."""
        if options.label is None and self.labels:
            return self.labels[0]
        if options.label not in self.labels:
            choices = " or ".join(self.labels) or "no choice"
            raise ConfigError(f"--label {options.label}: {self.name} offers {choices}")
        return options.label
