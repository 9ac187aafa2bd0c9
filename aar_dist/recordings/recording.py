"""What one recording is: the header of an HDF5 file, and the file itself opened for reading."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.units import Kind

LABEL = "label"
UNLABELLED = -1


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """One sensor of a recording. In the canonical unit of its kind, a value is ``scale * stored + offset``."""

    name: str
    kind: Kind
    rate_hz: float
    n_samples: int
    n_axes: int
    dtype: str
    """NumPy's name of the stored type, such as ``<i2``."""
    units: str
    """As written in the file, or as given for files that do not say."""
    axes: tuple[str, ...]
    scale: tuple[float, ...]
    """One for each axis: the declared ``scale`` times the conversion of ``units``."""
    offset: tuple[float, ...]

    @property
    def duration_s(self) -> float:
        """Recorded time [s]."""
        return self.n_samples / self.rate_hz


@dataclass(frozen=True, kw_only=True)
class LabelTrack:
    """The labels of a recording, on a clock of their own."""

    rate_hz: float
    n: int
    classes: tuple[str, ...] | None
    """Names of the classes 0, 1, …; None where the label is a number to be predicted."""
    as_text: bool = False
    """Whether the file holds names (the first system) instead of class numbers."""

    @property
    def duration_s(self) -> float:
        """Labelled time [s]."""
        return self.n / self.rate_hz


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The header of one recording; sensors in the order of their names."""

    path: Path
    dataset: str
    subject: str
    species: str
    recording: str
    """The stem of the file name."""
    location: str
    """Where on the body; empty where not told."""
    start_time: str | None
    """ISO 8601, where known."""
    sensors: tuple[Sensor, ...]
    label: LabelTrack | None
    source: str = ""
    """The published file that it was converted from, where known."""

    @property
    def name(self) -> str:
        """What a person knows it by."""
        return self.source or self.path.name

    @property
    def duration_s(self) -> float:
        """Time that every sensor has recorded [s]."""
        return min(s.duration_s for s in self.sensors)


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file for reading; what HDF5 cannot read is a RecordingError that names the file."""
    if not path.is_file():
        raise RecordingError(f"{path}: no such file")
    try:
        # Readers take no lock: recordings are never changed in place, and many network file systems have no locks.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise RecordingError(
            f"{path}: not readable as HDF5 ({reason}); it may be cut short: copy or convert it again"
        ) from error
