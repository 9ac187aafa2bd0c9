"""Which recordings are to be predicted.

folder of .hdf5 (or of such folders) | one .hdf5 | CSV or Parquet with a table YAML -> headers of recordings, bad ones
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from aar_dist.base.errors import ConfigError, RecordingError
from aar_dist.base.progress import progress
from aar_dist.base.storage import is_staging
from aar_dist.recordings.contract import SUFFIXES, Recording, read_recording, scan_recordings
from aar_dist.recordings.converter import Take
from aar_dist.recordings.gaps import PERIODS, contiguous_runs
from aar_dist.recordings.layout import read_layout
from aar_dist.recordings.names import natural
from aar_dist.recordings.table import read_takes
from aar_dist.shards.format import MANIFEST

TABLES = (".csv", ".txt", ".tsv", ".parquet")


class Clock(NamedTuple):
    """How the times of a table run beside the samples of a recording."""

    offset_s: float = 0.0
    """From the first row of the animal in its file to the first of this recording."""
    pace: float = 1.0
    """Seconds of the table in a second of samples: loggers are seldom as fast as they say."""


@dataclass
class Found:
    """What there is to predict."""

    good: list[Recording] = field(default_factory=list)
    """By data set and name."""
    bad: list[RecordingError] = field(default_factory=list)
    clocks: dict[Path, Clock] = field(default_factory=dict)
    """Of what was read from tables."""

    def of(self, subjects: Sequence[str]) -> "Found":
        """The recordings of these subjects, ``12`` or ``herd/12``; of all where none is named."""
        if not subjects:
            return self
        names = {name for r in self.good for name in (r.subject, f"{r.dataset}/{r.subject}")}
        if unknown := [name for name in subjects if name not in names]:
            there = ", ".join(sorted({r.subject for r in self.good}))
            raise ConfigError(f"--subject {unknown[0]}: no recording of this subject; there are {there or 'none'}")
        good = [r for r in self.good if {r.subject, f"{r.dataset}/{r.subject}"} & {*subjects}]
        return Found(good, self.bad, self.clocks)


@contextmanager
def open_recordings(path: Path, table: Path | None, units: Mapping[str, str]) -> Iterator[Found]:
    """The recordings and what is wrong with the others. Tables are converted into a
    temporary folder, which is there for the time of the block.

    Raises:
        ConfigError, RecordingError: nothing is there, or a YAML that cannot be used.
    """
    if not path.exists():
        raise RecordingError(f"{path}: no such file or folder; give recordings, or a table with --table YAML")
    with tempfile.TemporaryDirectory(prefix="aar-dist-") as folder:
        found = _hdf5(path, units) if table is None else _tables(path, table, Path(folder))
        found.good.sort(key=_natural)
        yield found


def _hdf5(path: Path, units: Mapping[str, str]) -> Found:
    if path.is_file():
        if path.suffix in TABLES:
            raise ConfigError(
                f"{path}: a table needs the YAML that describes it: --table YAML (see docs/recordings.md)"
            )
        return Found([read_recording(path, units=units)])
    folders = [f for f in (path, *sorted(path.iterdir())) if f.is_dir() and not is_staging(f) and _holds_hdf5(f)]
    if not folders:
        if (path / MANIFEST).is_file():
            raise RecordingError(f"{path}: is a shard set; give the folder of recordings that it was built from")
        there = sorted({f.suffix for f in path.rglob("*") if f.is_file() and f.suffix in TABLES})
        hint = f"; for its {there[0]} files give --table YAML" if there else ""
        raise RecordingError(
            f"{path}: holds no recording; looked for {' and '.join('*' + s for s in SUFFIXES)} in it and in its "
            f"folders{hint}"
        )
    parts = [scan_recordings(folder, units) for folder in folders]
    return Found([r for good, _ in parts for r in good], [error for _, bad in parts for error in bad])


def _holds_hdf5(folder: Path) -> bool:
    return any(f.suffix in SUFFIXES and not f.name.startswith(".") and not is_staging(f) for f in folder.iterdir())


def _tables(path: Path, description: Path, folder: Path) -> Found:
    """Recordings made of a table, or of all tables of a folder that the YAML's glob finds."""
    layout = read_layout(description)
    root = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else sorted(f for f in root.glob(layout.glob) if f.is_file())
    if not files:
        raise RecordingError(f"{path}: no file matches the glob {layout.glob!r} of {description}")
    found = Found()
    numbers: Counter[str] = Counter()
    with progress(f"reading {len(files)} tables", len(files)) as advance:
        for file in files:
            try:
                rows: dict[str, _Rows] = {}
                for take in read_takes(file, root, layout, need_label=False):
                    made = take.write(folder / layout.dataset, layout.dataset, numbers[take.subject])
                    numbers[take.subject] += len(made)
                    found.good += [read_recording(f) for f in made]
                    clocks = rows.setdefault(take.subject, _Rows()).clocks(take)
                    found.clocks.update(zip(made, clocks, strict=True))
            except RecordingError as error:
                text = str(error).replace(f"{folder / layout.dataset}/", "")
                found.bad.append(RecordingError(text if file.name in text else f"{file}: {text}"))
            advance()
    return found


class _Rows:
    """The rows of one animal in one file, which may stand in several places; its clock begins with the first."""

    def __init__(self) -> None:
        self.first_s: float | None = None
        self.lasted_s = 0.0
        """Where rows have no times."""

    def clocks(self, take: Take) -> list[Clock]:
        """Of each stretch that the next of its takes was cut into at gaps."""
        sensor = next(iter(take.sensors.values()))
        if take.timestamps_s is None:
            begin_s, self.lasted_s = self.lasted_s, self.lasted_s + len(sensor.values) / sensor.rate_hz
            return [Clock(begin_s)]
        if self.first_s is None:
            self.first_s = float(take.timestamps_s[0])
        step_s = take.max_step_s or PERIODS / sensor.rate_hz
        runs = contiguous_runs(take.timestamps_s, sensor.rate_hz, take.max_step_s, take.source)
        return [self._clock(take.timestamps_s[start:stop], sensor.rate_hz, step_s) for start, stop in runs]

    def _clock(self, times_s: NDArray[Any], rate_hz: float, step_s: float) -> Clock:
        """What differs by less than the longest step is how finely the times were written."""
        assert self.first_s is not None
        by_time, by_rate = float(times_s[-1] - times_s[0]), (len(times_s) - 1) / rate_hz
        pace = by_time / by_rate if abs(by_time - by_rate) > step_s else 1.0
        return Clock(float(times_s[0]) - self.first_s, pace)


def _natural(recording: Recording) -> tuple[str, list[tuple[int, str]]]:
    """Data set, then name, with ``_ds_10`` behind ``_ds_2``."""
    return recording.dataset, natural(recording.recording)
