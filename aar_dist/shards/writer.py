"""One shard: chunks read from their recordings, written as a tar, described by rows.

ShardJob -> <shard>.tar (whole, or not there) + .build/<shard>.json (its manifest rows and label runs)
"""

import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.base import storage
from aar_dist.base.errors import RecordingError, ShardError
from aar_dist.base.remote import Missing, Remote, is_url
from aar_dist.recordings.contract import UNLABELLED, Recording, Sensor, read_labels, read_samples
from aar_dist.shards.layout import JSON, LABEL, DatasetLayout, clock, description, label_rate, sample_key
from aar_dist.shards.packing import grid_of, pack
from aar_dist.shards.plan import Chunk, ShardSpec, label_span, span_of
from aar_dist.shards.sites import PLAN, nameless_file, rows_name
from aar_dist.shards.statistics import moments
from aar_dist.shards.tar import TarWriter

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """All that a worker needs to write one shard."""

    spec: ShardSpec
    recordings: dict[int, Recording]
    """As they are stored."""
    sources: dict[int, Recording]
    """As they are recorded."""
    layout: DatasetLayout
    longest_segment_s: float
    folder: Path | str
    """Where the set is made; may be a URL."""
    plan: str
    """Hash of the build plan: a shard of another plan is written again."""


def write_shard(job: ShardJob) -> None:
    """Write one shard and its rows, unless both stand there already.

    Two attempts may be at work at once: Ray begins another where it lost sight of a node whose worker lives on. Each
    writes under a name of its own and puts its bytes, the same ones, in place of the other's. One that comes after the
    build has ended finds no build folder, fails and leaves nothing.
    """
    if is_url(job.folder):
        _upload(Remote(str(job.folder)), job)
        return
    final, rows_path = Path(job.folder) / job.spec.name, Path(job.folder) / rows_name(job.spec.name)
    if _finished(final, rows_path, job.plan):
        return
    staging, staged_rows = (_of_this_attempt(path) for path in (final, rows_path))
    with storage.one_line_errors(final, staging, staged_rows):
        staged_rows.write_bytes(make_shard(job, staging))
        storage.replace(staged_rows, rows_path)
        storage.replace(staging, final)


def make_shard(job: ShardJob, path: Path) -> bytes:
    """Write the tar of a shard; its rows and label runs as JSON."""
    with TarWriter(path) as tar:
        samples = [_write_chunk(tar, job, chunk) for chunk in job.spec.chunks]
        tar.finish()
    rows = [row | {"shard_bytes": tar.size, "sha256": tar.sha256} for s in samples for row in s[0]]
    runs = [run for s in samples for run in s[1]]
    return json.dumps({"plan": job.plan, "rows": rows, "labels": runs}).encode()


def _of_this_attempt(path: Path) -> Path:
    """Host and process do not tell attempts apart where containers share a host's name."""
    return Path(f"{storage.staging_name(path)}-{secrets.token_hex(4)}")


def _finished(final: Path, rows_path: Path, plan: str) -> bool:
    if not (final.is_file() and rows_path.is_file()):
        return False
    return size_told(rows_path.read_bytes(), plan) == final.stat().st_size


def size_told(rows: bytes, plan: str) -> int | None:
    """Bytes of the shard that these rows, made by this plan, speak of; None if they are of another."""
    written = json.loads(rows)
    return int(written["rows"][0]["shard_bytes"]) if written["plan"] == plan else None


def _upload(remote: Remote, job: ShardJob) -> None:
    """Write one shard to a URL by way of the local disk: no more than this one shard is ever on it."""
    name = rows_name(job.spec.name)
    with suppress(Missing):
        if size_told(remote.read(name), job.plan) == remote.size(job.spec.name):
            return
    with nameless_file() as path:
        rows = make_shard(job, path)
        if not remote.exists(PLAN):  # an attempt that was thought dead: the build has ended without it
            raise ShardError(f"{remote}: the build that {job.spec.name} is of has ended; run it again if need be")
        remote.write(job.spec.name, path)
    remote.write(name, rows)


def _write_chunk(tar: TarWriter, job: ShardJob, chunk: Chunk) -> tuple[list[Row], list[Row]]:
    """Append one sample; its manifest rows and label runs."""
    recording = job.recordings[chunk.recording]
    key = sample_key(recording, chunk.start)
    present = {s.name: s for s in recording.sensors}
    rows = []
    for column in job.layout.sensors:
        member = f"{key}.{column.name}.npy"
        if column.name in present:
            rows.append(_write_sensor(tar, member, job, recording, present[column.name], chunk) | {"key": key})
        else:
            tar.add_array(member, np.zeros((0, len(column.axes)), column.dtype))
    runs = _write_labels(tar, f"{key}.{LABEL}", job, recording, chunk) if job.layout.labelled else []
    about = description(job.layout, recording, job.spec.split, chunk.start / clock(recording).rate_hz)
    tar.add(f"{key}.{JSON}", json.dumps(about).encode())
    return rows, runs


def _write_sensor(
    tar: TarWriter, member: str, job: ShardJob, recording: Recording, sensor: Sensor, chunk: Chunk
) -> Row:
    span = span_of(recording, sensor, chunk, job.longest_segment_s)
    source = next(s for s in job.sources[chunk.recording].sensors if s.name == sensor.name)
    values = read_samples(recording, source, span.start, span.stop)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    grid = grid_of(sensor.dtype, sensor.scale, sensor.offset)
    stored, error = pack(values, source, grid) if grid else (values, np.zeros(0))
    offset = tar.add_array(member, stored)
    return {
        "shard": job.spec.name,
        "split": job.spec.split,
        "dataset": recording.dataset,
        "species": recording.species,
        "subject": recording.subject,
        "recording": recording.recording,
        "location": recording.location,
        "sensor": sensor.name,
        "kind": sensor.kind,
        "offset": offset,
        "n_samples": len(values),
        "owned_starts": span.owned,
        "dtype": grid.format if grid else stored.dtype.str,
        "axes": ",".join(sensor.axes),
        "units": sensor.units,
        "rate_hz": sensor.rate_hz,
        "start_s": span.start / sensor.rate_hz,
        "scale": list(sensor.scale),
        "zero": list(sensor.offset),
        **_statistics(values[: span.owned], source),
        "pack_error": error.tolist(),  # not for the manifest: the worst one is told of the whole set
    }


def _statistics(values: NDArray[Any], sensor: Sensor) -> Row:
    """Count, mean and standard deviation per axis of the values that are not NaN, in the unit of the kind."""
    found, scale = moments(values), np.array(sensor.scale)
    mean = np.where(found.n > 0, found.mean * scale + sensor.offset, 0.0)
    return {"n_valid": found.n.tolist(), "mean": mean.tolist(), "std": (found.std * abs(scale)).tolist()}


def _write_labels(tar: TarWriter, member: str, job: ShardJob, recording: Recording, chunk: Chunk) -> list[Row]:
    span = label_span(recording, chunk, job.longest_segment_s)
    if recording.label is None:
        empty = np.nan if job.layout.classes is None else UNLABELLED
        tar.add_array(member, np.full(span.stop - span.start, empty, job.layout.label_dtype))
        return []
    labels = read_labels(recording, span.start, span.stop)
    classes = job.layout.classes
    labels = labels.astype(job.layout.label_dtype) if classes is None else _renumbered(labels, recording, classes)
    tar.add_array(member, labels)
    return label_runs(labels[: span.owned], span.start, label_rate(recording), recording, classes)


def _renumbered(labels: NDArray[Any], recording: Recording, classes: tuple[str, ...]) -> NDArray[np.int16]:
    """The recording's class numbers as those of its data set."""
    own = recording.label.classes if recording.label and recording.label.classes else ()
    if labels.size and (labels.min() < UNLABELLED or labels.max() >= len(own)):
        raise RecordingError(
            f"{recording.path}: label holds {int(labels.min())} to {int(labels.max())}, expected -1 to {len(own) - 1}; "
            "mend the labels or the attribute `classes`"
        )
    table = np.array([classes.index(name) for name in own] + [UNLABELLED], np.int16)
    return table[labels.astype(np.int64)]


def label_runs(
    labels: NDArray[Any], start: int, rate_hz: float, recording: Recording, classes: tuple[str, ...] | None
) -> list[Row]:
    """Stretches of one class, or of one value of a target; unlabelled ones left out."""
    if not labels.size:
        return []
    edges = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    starts, stops = np.r_[0, edges], np.r_[edges, len(labels)]
    unlabelled = np.isnan(labels[starts]) if classes is None else labels[starts] == UNLABELLED
    return [
        {
            "dataset": recording.dataset,
            "recording": recording.recording,
            "start_s": (start + int(a)) / rate_hz,
            "stop_s": (start + int(b)) / rate_hz,
            "class": classes[labels[a]] if classes is not None else None,
            "value": float(labels[a]) if classes is None else None,
        }
        for a, b in zip(starts[~unlabelled], stops[~unlabelled], strict=True)
    ]
