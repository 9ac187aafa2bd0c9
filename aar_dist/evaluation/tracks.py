"""What the audit reads: one sensor of one recording as a line of stored samples, out of shards or HDF5 files.

shard sets  -> manifest rows of each (recording, sensor) -> Track -> read(a, b) -> (b - a, axes) as stored
HDF5 files  -> headers                                   -> Track
"""

import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.recordings.contract import Recording, read_samples
from aar_dist.shards.format import read_info, read_manifest
from aar_dist.stream.maps import check_size

COLUMNS = ["shard", "shard_bytes", "dataset", "subject", "recording", "sensor", "offset", "n_samples", "owned_starts",
           "dtype", "axes", "rate_hz", "start_s"]  # fmt: skip


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
    """Samples [a, b) as stored, (b - a, axes)."""
    name: str = ""
    """What a person knows the recording by."""

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
        )
        for r in recordings
        for s in r.sensors
    ]


def tracks_of_shards(folders: Sequence[Path], *, started: bool = True) -> list[Track]:
    """A track for each sensor of each recording, put together from its chunks. Their start times stand in the shards
    themselves: without ``started`` none is opened."""
    tracks = []
    for folder in folders:
        rows = read_manifest(folder, read_info(folder), COLUMNS).to_pylist()
        starts = _start_times(folder, {row["shard"]: row["shard_bytes"] for row in rows}) if started else {}
        chunks: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for row in rows:
            chunks.setdefault((row["dataset"], row["recording"], row["sensor"]), []).append(row)
        tracks += [_track(folder, sorted(of, key=lambda r: r["start_s"]), starts) for of in chunks.values()]
    return tracks


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _track(folder: Path, rows: Sequence[dict[str, Any]], starts: dict[tuple[str, str], str]) -> Track:
    first = rows[0]
    where = (first["dataset"], first["recording"])
    # The last chunk owns all that is left; the others overlap the next one by what they do not own.
    lengths = [row["owned_starts"] for row in rows[:-1]] + [rows[-1]["n_samples"]]
    ends = np.cumsum(lengths)
    return Track(
        dataset=first["dataset"],
        subject=f"{first['dataset']}/{first['subject']}",
        recording=first["recording"],
        sensor=first["sensor"],
        rate_hz=first["rate_hz"],
        n=int(ends[-1]),
        started=_moment(starts.get(where)),
        read=partial(_read, folder, rows, ends - lengths, ends),
        name=first["recording"],
    )


def _read(
    folder: Path, rows: Sequence[dict[str, Any]], begins: NDArray[Any], ends: NDArray[Any], start: int, stop: int
) -> NDArray[Any]:
    """Samples [start, stop) out of the chunks that hold them."""
    parts = []
    for k in range(int(np.searchsorted(ends, start, "right")), len(rows)):
        if begins[k] >= stop:
            break
        row, a, b = rows[k], max(start - int(begins[k]), 0), min(stop, int(ends[k])) - int(begins[k])
        dtype, axes = np.dtype(row["dtype"]), row["axes"].count(",") + 1
        at = row["offset"] + a * axes * dtype.itemsize
        parts.append(np.fromfile(folder / row["shard"], dtype, (b - a) * axes, offset=at).reshape(-1, axes))
    return np.concatenate(parts)


def _start_times(folder: Path, shards: dict[str, int]) -> dict[tuple[str, str], str]:
    """(dataset, recording) -> ISO start, from the JSON beside the samples: the manifest does not hold it."""
    starts: dict[tuple[str, str], str] = {}
    for name, size in shards.items():
        check_size(folder / name, size)
        with tarfile.open(folder / name, "r:") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.name.endswith(".json") else None
                if file is not None:
                    told = json.load(file)
                    starts[told["dataset"], told["recording"]] = told["start_time"]
    return starts
