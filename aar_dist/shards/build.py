"""HDF5 recordings -> shards.

    <data_root>/<dataset>/*.hdf5 -> check -> plan -> write (many workers, any order) -> manifest -> one identity

A build that was killed goes on where it stood and ends with the same bytes; the manifest is written last.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from aar_dist.base import storage
from aar_dist.base.errors import ConfigError, RecordingError, ShardError
from aar_dist.base.jobs import available_cores, run_jobs
from aar_dist.base.progress import progress
from aar_dist.recordings.contract import Recording, check_values, raise_together, scan_recordings
from aar_dist.shards import format as layout
from aar_dist.shards.plan import ShardSpec, layouts_of, plan_shards
from aar_dist.shards.writer import Row, ShardJob, write_shard

CHECK_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What decides the bytes of a shard set (beside the recordings)."""

    datasets: tuple[str, ...]
    train_ratio: float = 0.5
    """Share of the subjects of each data set that train; the others validate."""
    random_seed: int = 578
    longest_segment_s: float = 30.0
    """The longest segment that the shards will serve [s]; neighbouring chunks overlap by it."""
    shard_bytes: int = 64_000_000
    units: Mapping[str, str] = field(default_factory=dict)
    """Kind of sensor -> unit, for recordings that do not say."""

    def __post_init__(self) -> None:
        if not 0 <= self.train_ratio <= 1:
            raise ConfigError(f"--train_ratio must lie in [0, 1], got {self.train_ratio}")
        if self.longest_segment_s <= 0:
            raise ConfigError(f"--longest_segment_s must be positive, got {self.longest_segment_s}")
        if self.shard_bytes <= 0:
            raise ConfigError(f"--shard_size must be positive, got {self.shard_bytes}")


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What a build has made."""

    folder: Path
    info: dict[str, Any]
    skipped: tuple[str, ...]


def build(
    data_root: Path,
    output_folder: Path,
    options: BuildOptions,
    *,
    workers: int | None = None,
    ray_address: str | None = None,
    skip_bad: bool = False,
) -> BuildResult:
    """Build a shard set, or finish one that was begun with the same recordings and options."""
    run = partial(run_jobs, workers=workers or available_cores(), address=ray_address)
    if (output_folder / layout.MANIFEST).exists():
        return _already_built(output_folder, options)
    recordings, skipped = usable_recordings(data_root, options, run, skip_bad)
    specs = plan_shards(
        recordings,
        train_ratio=options.train_ratio,
        random_seed=options.random_seed,
        longest_segment_s=options.longest_segment_s,
        shard_bytes=options.shard_bytes,
    )
    plan = _plan_hash(recordings, options)
    _open_build(output_folder, plan)
    layouts = layouts_of(recordings)
    jobs = [
        ShardJob(
            spec=spec,
            recordings={c.recording: recordings[c.recording] for c in spec.chunks},
            layout=layouts[spec.dataset],
            longest_segment_s=options.longest_segment_s,
            folder=output_folder,
            plan=plan,
        )
        for spec in specs
    ]
    with progress(f"writing {len(jobs)} shards", len(jobs)) as advance:
        sidecars = run(write_shard, jobs, on_done=lambda path: advance())
    info = _finish(output_folder, specs, sidecars, recordings, options, skipped)
    return BuildResult(folder=output_folder, info=info, skipped=tuple(skipped))


def usable_recordings(
    data_root: Path, options: BuildOptions, run: Any, skip_bad: bool
) -> tuple[list[Recording], list[str]]:
    """The recordings of the chosen data sets, headers and values checked; bad ones raise together or are skipped."""
    if not data_root.is_dir():
        raise RecordingError(
            f"{data_root}: no such folder; --data_root holds one folder of .hdf5 recordings for each data set"
        )
    good: list[Recording] = []
    bad: list[RecordingError] = []
    for dataset in options.datasets:
        recordings, errors = scan_recordings(data_root / dataset, options.units)
        good += recordings
        bad += errors
    names = sorted({r.dataset for r in good})
    if len(names) > len({*options.datasets}):
        raise RecordingError(
            f"{data_root}: recordings of {names} in {len(options.datasets)} folders; one data set a folder"
        )
    batches = [good[i : i + CHECK_BATCH] for i in range(0, len(good), CHECK_BATCH)]
    with progress(f"checking {len(good)} recordings", len(batches)) as advance:
        checked = [e for errors in run(_check, batches, on_done=lambda result: advance()) for e in errors]
    n_found = len(good) + len(bad)
    bad += [error for error in checked if error]
    if bad and not skip_bad:
        raise_together(bad, f"{len(bad)} of {n_found} recordings cannot be used")
    good = [r for r, error in zip(good, checked, strict=True) if error is None]
    if not good:
        raise RecordingError(f"{data_root}: no usable recording in {', '.join(options.datasets)}: {bad[0]}")
    return good, [str(error) for error in bad]


def _check(recordings: Sequence[Recording]) -> list[RecordingError | None]:
    results: list[RecordingError | None] = []
    for recording in recordings:
        try:
            check_values(recording)
            results.append(None)
        except RecordingError as error:
            results.append(error)
    return results


def _plan_hash(recordings: Sequence[Recording], options: BuildOptions) -> str:
    """What the bytes follow from; a recording that was changed since (size, time) makes another plan."""
    state = [(str(r.path), r.path.stat().st_size, r.path.stat().st_mtime_ns, repr(r)) for r in recordings]
    text = json.dumps([layout.FORMAT_VERSION, asdict(options), state])
    return hashlib.sha256(text.encode()).hexdigest()


def _open_build(folder: Path, plan: str) -> None:
    """Begin the folder, or take up the build that was killed there; no other writer may be at work in it."""
    marker = folder / layout.BUILD_FOLDER / "plan"
    if marker.is_file() and marker.read_text() != plan:
        raise ShardError(
            f"{folder}: holds an unfinished build of other recordings or options; "
            "run that one again, remove the folder or choose another --output_folder"
        )
    if not marker.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise ShardError(f"{folder}: not empty, and not a shard set; choose a new --output_folder")
    with storage.one_line_errors(folder):
        marker.parent.mkdir(parents=True, exist_ok=True)
    storage.sweep(folder)
    storage.write_text(marker, plan)


def _already_built(folder: Path, options: BuildOptions) -> BuildResult:
    info = layout.read_info(folder)
    if info["options"] != json.loads(json.dumps(asdict(options))):
        raise ShardError(
            f"{folder}: holds a finished shard set with other options, {info['options']}; "
            "choose another --output_folder"
        )
    print(f"{folder}: already built, nothing to do", file=sys.stderr)
    return BuildResult(folder=folder, info=info, skipped=tuple(info["skipped"]))


def _finish(
    folder: Path,
    specs: Sequence[ShardSpec],
    sidecars: Sequence[Path],
    recordings: Sequence[Recording],
    options: BuildOptions,
    skipped: Sequence[str],
) -> dict[str, Any]:
    """Write labels, dataset.json and, last of all, the manifest; then the traces of the build go."""
    written = [json.loads(path.read_text()) for path in sidecars]
    rows = [row for shard in written for row in shard["rows"]]
    runs = merge_runs([run for shard in written for run in shard["labels"]])
    manifest = layout.parquet_bytes(pa.Table.from_pylist(rows, layout.MANIFEST_SCHEMA))
    labels = layout.parquet_bytes(pa.Table.from_pylist(runs, layout.LABELS_SCHEMA))
    info = {
        "format_version": layout.FORMAT_VERSION,
        "identity": layout.identity_of(rows),
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "labels_sha256": hashlib.sha256(labels).hexdigest(),
        "options": asdict(options),
        "totals": totals(rows, recordings, options.longest_segment_s),
        "classes": {name: list(one.classes or ()) for name, one in layouts_of(recordings).items()},
        "skipped": list(skipped),
    }
    storage.write_bytes(folder / layout.LABELS, labels)
    storage.write_json(folder / layout.INFO, info)
    storage.write_bytes(folder / layout.MANIFEST, manifest)
    storage.remove(folder / layout.BUILD_FOLDER)
    return info


def totals(rows: Sequence[Row], recordings: Sequence[Recording], longest_segment_s: float) -> dict[str, Any]:
    """Sums over the whole set."""
    shards = {row["shard"]: row["shard_bytes"] for row in rows}
    sample_bytes = [np.dtype(row["dtype"]).itemsize * len(row["scale"]) for row in rows]
    stored = sum(row["n_samples"] * size for row, size in zip(rows, sample_bytes, strict=True))
    owned = sum(row["owned_starts"] * size for row, size in zip(rows, sample_bytes, strict=True))
    return {
        "shards": len(shards),
        "bytes": sum(shards.values()),
        "chunks": len({(row["shard"], row["key"]) for row in rows}),
        "recordings": len(recordings),
        "hours": sum(r.duration_s for r in recordings) / 3600,
        "overlap": stored / owned - 1,
        "shorter_than_longest_segment": sum(r.duration_s < longest_segment_s for r in recordings),
    }


def merge_runs(runs: Sequence[Row]) -> list[Row]:
    """Label runs in order of data set, recording and time; the parts of a run cut by a chunk border become one."""
    merged: list[Row] = []
    for run in sorted(runs, key=lambda r: (r["dataset"], r["recording"], r["start_s"])):
        last = merged[-1] if merged else None
        same = last and all(last[name] == run[name] for name in ("dataset", "recording", "class", "value"))
        if last and same and last["stop_s"] == run["start_s"]:
            last["stop_s"] = run["stop_s"]
        else:
            merged.append(dict(run))
    return merged
