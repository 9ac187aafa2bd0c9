"""HDF5 recordings -> shards.

    <data_root>/<dataset>/*.hdf5 -> check -> plan -> write (many workers, any order) -> manifest -> one identity

A build that was killed goes on where it stood and ends with the same bytes; the manifest is written last.
"""

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from aar_dist.base import storage
from aar_dist.base.errors import ConfigError, RecordingError, ShardError
from aar_dist.base.jobs import Session, Workers, available_cores
from aar_dist.base.progress import progress
from aar_dist.recordings.contract import Recording, check_values, raise_together, scan_recordings
from aar_dist.shards import format as layout
from aar_dist.shards.grids import SensorPacking, description, pack_recordings
from aar_dist.shards.layout import layouts_of, stem
from aar_dist.shards.packing import Format
from aar_dist.shards.plan import plan_shards
from aar_dist.shards.sites import Site, rows_name, site_of
from aar_dist.shards.writer import Row, ShardJob, write_shard

READERS = 16  # rows that are read at a time
CHECK_JOBS, CHECK_BATCH = 64, 64  # about so many jobs of at most so many recordings


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
    pack: Mapping[str, Format] = field(default_factory=dict)
    """Kind of sensor -> int16 or float16, for those of more bits."""
    max_pack_error: float = 0.01
    """The most that a packed value may move, as a share of its axis's standard deviation."""

    def __post_init__(self) -> None:
        if not 0 <= self.train_ratio <= 1:
            raise ConfigError(f"--train_ratio must lie in [0, 1], got {self.train_ratio}")
        if len(set(self.datasets)) < len(self.datasets):
            raise ConfigError(f"--datasets names a folder twice: {' '.join(self.datasets)}")
        if not 0 <= self.random_seed < 2**32:
            raise ConfigError(f"--random_seed must lie in [0, 2**32), got {self.random_seed}")
        if not 0 < self.longest_segment_s < math.inf:
            raise ConfigError(f"--longest_segment_s must be positive, got {self.longest_segment_s}")
        if self.shard_bytes <= 0:
            raise ConfigError(f"--shard_size must be positive, got {self.shard_bytes}")
        if not 0 < self.max_pack_error < 1:
            raise ConfigError(f"--max_pack_error must lie in (0, 1), got {self.max_pack_error}")


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What a build has made."""

    folder: Path | str
    info: dict[str, Any]
    skipped: tuple[str, ...]


def build(
    data_root: Path,
    output_folder: Path | str,
    options: BuildOptions,
    *,
    workers: int | None = None,
    ray_address: str | None = None,
    skip_bad: bool = False,
) -> BuildResult:
    """Build a shard set, or finish one that was begun with the same recordings and options.

    Args:
        output_folder: A folder, or a URL of an object store.
    """
    with Session(Workers(count=workers or available_cores(), address=ray_address)) as session:
        return build_in(session, data_root, output_folder, options, skip_bad=skip_bad)


def build_in(
    session: Session, data_root: Path, output_folder: Path | str, options: BuildOptions, *, skip_bad: bool = False
) -> BuildResult:
    """:func:`build` by workers that are there already."""
    found, bad = find_all(data_root, options)
    site = site_of(output_folder)
    if site.is_finished():
        return _already_built(site, output_folder, options, _fingerprint(found))
    recordings, skipped = usable_recordings(found, bad, session.run, skip_bad)
    layouts_of(recordings)  # refuses what no data set can hold before anything is read for packing
    stored, packing = pack_recordings(recordings, options.pack, options.max_pack_error, session.run)
    specs = plan_shards(
        stored,
        train_ratio=options.train_ratio,
        random_seed=options.random_seed,
        longest_segment_s=options.longest_segment_s,
        shard_bytes=options.shard_bytes,
    )
    plan = _plan_hash(recordings, options)
    site.begin(plan)
    layouts = layouts_of(stored)
    jobs = [
        ShardJob(
            spec=spec,
            recordings={c.recording: stored[c.recording] for c in spec.chunks},
            sources={c.recording: recordings[c.recording] for c in spec.chunks},
            layout=layouts[spec.dataset],
            longest_segment_s=options.longest_segment_s,
            folder=output_folder,
            plan=plan,
        )
        for spec in specs
    ]
    try:
        with progress(f"writing {len(jobs)} shards", len(jobs)) as advance:
            session.run(write_shard, jobs, on_done=lambda done: advance())
        told = [text.replace(f"{data_root}/", "") for text in skipped]  # the same bytes wherever the data lie
        about = {"options": asdict(options), "recordings_sha256": _fingerprint(found), "skipped": told}
        info = _finish(site, [spec.name for spec in specs], stored, packing, about)
    finally:
        site.let_go()
    return BuildResult(folder=output_folder, info=info, skipped=tuple(skipped))


def find_all(data_root: Path, options: BuildOptions) -> tuple[list[Recording], list[RecordingError]]:
    """The recordings of the chosen data sets by their headers, and an error for each bad one."""
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
    _refuse_one_name_twice(good)
    return good, bad


def usable_recordings(
    good: list[Recording], bad: list[RecordingError], run: Any, skip_bad: bool
) -> tuple[list[Recording], list[str]]:
    """Those of the found recordings whose values are good too; the bad ones raise together or are skipped."""
    size = min(max(len(good) // CHECK_JOBS, 1), CHECK_BATCH)
    batches = [good[i : i + size] for i in range(0, len(good), size)]
    with progress(f"checking {len(good)} recordings", len(batches)) as advance:
        checked = [e for errors in run(_check, batches, on_done=lambda result: advance()) for e in errors]
    n_found = len(good) + len(bad)
    bad = bad + [error for error in checked if error]
    if bad and not skip_bad:
        raise_together(bad, f"{len(bad)} of {n_found} recordings cannot be used")
    good = [r for r, error in zip(good, checked, strict=True) if error is None]
    if not good:
        raise RecordingError(f"none of {n_found} recordings can be used; the first: {bad[0]}")
    return good, [str(error) for error in bad]


def _refuse_one_name_twice(recordings: Sequence[Recording]) -> None:
    """A sample's key tells its recording: within a data set no two may have one name."""
    seen: dict[tuple[str, str], Recording] = {}
    for recording in recordings:
        first = seen.setdefault((recording.dataset, stem(recording)), recording)
        if first is not recording:
            raise RecordingError(
                f"{recording.path} and {first.path} are both recording {stem(recording)} of data set "
                f"{recording.dataset}; rename one, or give one folder's files another attribute `dataset`"
            )


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


def _fingerprint(recordings: Sequence[Recording]) -> str:
    """The recordings by name, header and size, wherever they lie: a build of others is another build."""
    state = sorted(repr((replace(r, path=Path(r.path.name)), r.path.stat().st_size)) for r in recordings)
    return hashlib.sha256("\n".join(state).encode()).hexdigest()


def _already_built(site: Site, folder: Path | str, options: BuildOptions, recordings: str) -> BuildResult:
    info = layout.read_info(folder)
    defaults = asdict(BuildOptions(datasets=()))  # of options that sets of an earlier version do not tell
    there, asked = defaults | info["options"], json.loads(json.dumps(asdict(options)))
    if other := [f"{name} {there[name]}, not {asked[name]}" for name in asked if there[name] != asked[name]]:
        raise ShardError(
            f"{site}: holds a finished shard set with other options ({'; '.join(other)}); choose another "
            "--output_folder"
        )
    if info["recordings_sha256"] != recordings:
        raise ShardError(
            f"{site}: was built from other recordings than those there are now (added, removed or changed); "
            "choose another --output_folder"
        )
    # What a build that was killed at its very end has left.
    site.end()
    print(f"{site}: already built, nothing to do", file=sys.stderr)
    return BuildResult(folder=folder, info=info, skipped=tuple(info["skipped"]))


def _finish(
    site: Site,
    shards: Sequence[str],
    recordings: Sequence[Recording],
    packing: Sequence[SensorPacking],
    about: dict[str, Any],
) -> dict[str, Any]:
    """Write labels, dataset.json and, last of all, the manifest; then the traces of the build go."""
    with ThreadPoolExecutor(READERS) as pool:
        written = [json.loads(text) for text in pool.map(site.read, map(rows_name, shards))]
    rows = [row for shard in written for row in shard["rows"]]
    runs = merge_runs([run for shard in written for run in shard["labels"]])
    manifest = layout.parquet_bytes(pa.Table.from_pylist(rows, layout.MANIFEST_SCHEMA))
    labels = layout.parquet_bytes(pa.Table.from_pylist(runs, layout.LABELS_SCHEMA))
    info = {
        "format_version": layout.FORMAT_VERSION,
        "identity": layout.identity_of(rows),
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "labels_sha256": hashlib.sha256(labels).hexdigest(),
        "totals": totals(rows, recordings, about["options"]["longest_segment_s"]),
        "packing": [description(one, rows) for one in packing],
        "classes": {name: list(one.classes or ()) for name, one in layouts_of(recordings).items()},
        **about,
    }
    site.tidy()  # a worker that died may have left a shard unfinished, written by another since
    site.write(layout.LABELS, labels)
    site.write(layout.INFO, storage.json_bytes(info))
    site.write(layout.MANIFEST, manifest)
    site.end()
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
