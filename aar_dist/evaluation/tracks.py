"""What the audit reads: one sensor of one recording as a line of stored samples, out of shards or HDF5 files.

shard sets  -> manifest rows of each (recording, sensor) -> Track -> read(a, b) -> (b - a, axes) as stored
HDF5 files  -> headers                                   -> Track
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.cache import Cache
from aar_dist.base.remote import is_url
from aar_dist.recordings.contract import Recording, read_samples
from aar_dist.shards.format import read_info, read_manifest
from aar_dist.shards.members import descriptions
from aar_dist.shards.packing import Grid, grid_of
from aar_dist.stream.staging import Shard, local_file

COLUMNS = ["shard", "shard_bytes", "sha256", "dataset", "species", "subject", "recording", "sensor", "kind", "offset",
           "n_samples", "owned_starts", "dtype", "scale", "zero", "axes", "rate_hz", "start_s"]  # fmt: skip

Opened = Mapping[str, Callable[[], AbstractContextManager[Path]]]
"""Name of a shard -> a file to read it from, while the context lasts."""


@dataclass(frozen=True)
class Track:
    """One sensor of one recording."""

    dataset: str
    subject: str
    """With its data set in front, ``herd/12``."""
    recording: str
    sensor: str
    rate_hz: float
    n: int
    """Samples."""
    started: datetime | None
    """Start of the recording, where it is known; in UTC if its zone is told."""
    read: Callable[[int, int], NDArray[Any]]
    """Samples [a, b) as they are compared, (b - a, axes): as stored, but for ``stored``."""
    name: str = ""
    """What a person knows the recording by."""
    species: str = ""
    kind: str = ""
    dtype: str = ""
    """Of the samples, as the manifest has it: ``int16`` and ``float16`` are packed."""
    scale: tuple[float, ...] = (1.0,)
    """Value in the unit of the kind = stored sample * scale + zero, per axis."""
    zero: tuple[float, ...] = (0.0,)
    stored: Callable[[int, int], NDArray[Any]] | None = None
    """Samples as stored, where ``read`` tells them as others of the data set are packed."""

    def values(self, start: int, stop: int) -> NDArray[np.float64]:
        """Samples [start, stop) in the unit of the kind, (n, axes); NaN for gaps."""
        stored = (self.stored or self.read)(start, stop)
        grid = grid_of(self.dtype, self.scale, self.zero)
        return grid.unpack(stored) if grid else stored.astype(np.float64) * self.scale + self.zero

    @property
    def duration_s(self) -> float:
        """Recorded time [s]."""
        return self.n / self.rate_hz


def tracks_of_recordings(recordings: Iterable[Recording]) -> list[Track]:
    """A track for each sensor."""
    return [
        Track(
            dataset=r.dataset,
            subject=f"{r.dataset}/{r.subject}",
            recording=r.recording,
            sensor=s.name,
            rate_hz=s.rate_hz,
            n=s.n_samples,
            started=_moment(r.start_time),
            read=partial(read_samples, r, s),
            name=r.name,
            species=r.species,
            kind=s.kind,
            dtype=s.dtype,
            scale=s.scale,
            zero=s.offset,
        )
        for r in recordings
        for s in r.sensors
    ]


def tracks_of_shards(folders: Sequence[Path | str], cache: Cache | None = None, *, started: bool = True) -> list[Track]:
    """A track for each sensor of each recording, put together from its chunks. What ``folders`` names by URL is read
    through the cache. Start times stand in the shards themselves: without ``started`` none is opened."""
    tracks = []
    if cache is None and any(map(is_url, folders)):
        cache = Cache.of()
    for folder in folders:
        rows = read_manifest(folder, read_info(folder), COLUMNS, cache).to_pylist()
        shards = {r["shard"]: Shard(r["shard"], r["shard_bytes"], r["sha256"], str(folder)) for r in rows}
        opened = {name: partial(local_file, shard, cache) for name, shard in shards.items()}
        starts = _start_times(opened.values()) if started else {}
        chunks: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for row in rows:
            chunks.setdefault((row["dataset"], row["recording"], row["sensor"]), []).append(row)
        grids = {(r["dataset"], r["sensor"]): grid for r in rows if (grid := _grid(r))}
        tracks += [
            _track(opened, sorted(of, key=lambda r: r["start_s"]), starts, grids.get((where[0], where[2])))
            for where, of in chunks.items()
        ]
    return tracks


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _grid(row: dict[str, Any]) -> Grid | None:
    """What the samples of a row were packed on."""
    return grid_of(row["dtype"], row["scale"], row["zero"])


def _track(
    opened: Opened, rows: Sequence[dict[str, Any]], starts: dict[tuple[str, str], str], grid: Grid | None
) -> Track:
    first = rows[0]
    where = (first["dataset"], first["recording"])
    # The last chunk owns all that is left; the others overlap the next one by what they do not own.
    lengths = [row["owned_starts"] for row in rows[:-1]] + [rows[-1]["n_samples"]]
    ends = np.cumsum(lengths)
    repacked = grid is not None and not _grid(first)
    return Track(
        dataset=first["dataset"],
        subject=f"{first['dataset']}/{first['subject']}",
        recording=first["recording"],
        sensor=first["sensor"],
        rate_hz=first["rate_hz"],
        n=int(ends[-1]),
        started=_moment(starts.get(where)),
        read=partial(_read, opened, rows, ends - lengths, ends, grid),
        name=first["recording"],
        species=first["species"],
        kind=first["kind"],
        dtype=first["dtype"],
        scale=tuple(first["scale"]),
        zero=tuple(first["zero"]),
        stored=partial(_read, opened, rows, ends - lengths, ends, None) if repacked else None,
    )


def _read(
    opened: Opened,
    rows: Sequence[dict[str, Any]],
    begins: NDArray[Any],
    ends: NDArray[Any],
    grid: Grid | None,
    start: int,
    stop: int,
) -> NDArray[Any]:
    """Samples [start, stop) out of the chunks that hold them; where other recordings of the sensor are packed, all are
    told as they would be packed, so that copies agree."""
    parts = []
    for k in range(int(np.searchsorted(ends, start, "right")), len(rows)):
        if begins[k] >= stop:
            break
        row, a, b = rows[k], max(start - int(begins[k]), 0), min(stop, int(ends[k])) - int(begins[k])
        dtype, axes = np.dtype(row["dtype"]), row["axes"].count(",") + 1
        at = row["offset"] + a * axes * dtype.itemsize
        with opened[row["shard"]]() as path:
            stored = np.fromfile(path, dtype, (b - a) * axes, offset=at).reshape(-1, axes)
        if grid and not _grid(row):
            stored = grid.pack(stored.astype(np.float64) * row["scale"] + row["zero"])
        parts.append(stored)
    return np.concatenate(parts)


def _start_times(opened: Iterable[Callable[[], AbstractContextManager[Path]]]) -> dict[tuple[str, str], str]:
    """(dataset, recording) -> ISO start, from the JSON beside the samples: the manifest does not hold it."""
    starts: dict[tuple[str, str], str] = {}
    for shard in opened:
        with shard() as path:
            for told in descriptions(path):
                starts[told["dataset"], told["recording"]] = told["start_time"]
    return starts
