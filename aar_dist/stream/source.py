"""What the configuration chooses from the shard sets.

    manifests + DataConfig + split -> Source: rows (a chunk of a sensor), items (what is drawn), data sets, channels

``each`` draws every row by itself. Several sensors draw the same seconds of a chunk: one item has a row for each, and
the channels of a sensor that a recording lacks are absent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aar_dist.base.errors import ConfigError, ShardError
from aar_dist.base.hashing import word
from aar_dist.shards.format import SPLITS, read_info, read_manifest
from aar_dist.stream.config import DataConfig, Statistics
from aar_dist.stream.statistics import settled
from aar_dist.stream.tape import Ints, Items

Floats = NDArray[np.float64]

COLUMNS = [
    "shard", "shard_bytes", "split", "dataset", "subject", "recording", "key", "sensor", "kind", "offset",
    "n_samples", "owned_starts", "dtype", "axes", "rate_hz", "start_s", "scale", "zero", "n_valid", "mean", "std",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Struct of arrays over the chosen manifest rows; r rows, A the most axes of any."""

    shard: Ints
    offset: Ints
    """(r,) first sample in the shard [bytes]."""
    n_samples: Ints
    first_sample: Ints
    """(r,) place of the first sample in the recording."""
    rate_hz: Floats
    window: Ints
    """(r,) samples of a segment handed on."""
    duration_s: Floats
    """(r,) length of a segment handed on, before it is rounded to samples."""
    dtype: Ints
    """(r,) index into ``dtypes``."""
    n_axes: Ints
    scale: NDArray[np.float32]
    """(r, A) stored value -> what the model sees, normalisation by statistics included; 0 beyond n_axes."""
    zero: NDArray[np.float32]
    channel: Ints
    """(r, A) index into ``channels``; -1 beyond n_axes."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """All that a stream reads from, for one split."""

    shards: tuple[tuple[Path, int], ...]
    """Path and bytes of each shard."""
    rows: Rows
    parts: Ints
    """(n_items, k) the rows of each item; -1 where a recording lacks a sensor."""
    column: Ints
    """(k,) first channel column of each part."""
    items: Items
    seconds: tuple[float, ...]
    """Recorded time of each data set in this split [s]."""
    n_columns: int
    dtypes: tuple[str, ...]
    datasets: tuple[str, ...]
    channels: tuple[str, ...]
    identity: str
    folders: tuple[Path, ...]
    """The shard sets."""
    origin: dict[str, NDArray[np.str_]]
    """dataset, subject, recording, sensor of each row."""
    too_short: int
    """Recordings without room for one segment."""
    vanished: tuple[str, ...]
    """Data sets all of whose recordings are too short."""
    statistics: Statistics | None = None
    """With ``normalize: dataset``: those that were told and those that were measured."""


def open_source(data: DataConfig, split: str | None) -> Source:
    """Read the manifests and choose what the configuration asks for, of one split or (None) of all subjects."""
    if not data.shards:
        raise ConfigError("data.shards is empty, expected at least one shard set (a folder made by shards/build.py)")
    everything, folders, identity = _read(data)
    _check_split(everything, folders)
    everything = everything.filter(_of_sensors(everything, data))
    table = _of_split(everything, split)
    if table.num_rows == 0:
        raise ShardError(
            f"{', '.join(data.shards)}: no {split or 'recorded'} data of sensors {data.sensors!r}"
            + (f", kinds {data.kinds}" if data.sensors == "each" else "")
            + "; see `aar-dist inspect` for what there is"
        )
    table = table.take(
        np.lexsort((table["offset"], _codes(table["shard"])[0], table["set"], _codes(table["dataset"])[0]))
    )
    return _Chooser(table, everything, folders, identity, data).source()


def has_split(data: DataConfig, split: str) -> bool:
    """True if the shard sets hold data of the chosen sensors in this split."""
    table, _, _ = _read(data)
    return bool(_of_split(table.filter(_of_sensors(table, data)), split).num_rows)


def _read(data: DataConfig) -> tuple[pa.Table, list[Path], str]:
    """The manifests of all sets in one table, with the number of the set as a column."""
    tables: list[pa.Table] = []
    folders: list[Path] = []
    identities: list[str] = []
    for number, name in enumerate(data.shards):
        folder = Path(name)
        info = read_info(folder)
        longest = info["options"]["longest_segment_s"]
        if data.segment_duration > longest:
            raise ConfigError(
                f"data.segment_duration is {data.segment_duration:g} s, but {folder} was built for segments up to "
                f"{longest:g} s; build it again with --longest_segment_s {data.segment_duration:g}"
            )
        part = read_manifest(folder, info, COLUMNS)
        tables.append(part.append_column("set", pa.array(np.full(part.num_rows, number))))
        if info["identity"] in identities:
            raise ConfigError(
                f"data.shards: {folder} is the same shard set as {folders[identities.index(info['identity'])]}; "
                "name each once (data.mixture decides how often it is drawn)"
            )
        folders.append(folder)
        identities.append(info["identity"])
    return pa.concat_tables(tables).unify_dictionaries(), folders, "+".join(identities)


def _check_split(table: pa.Table, folders: list[Path]) -> None:
    """A subject trains or validates, in whichever shard sets it stands."""
    dataset, datasets = _encoded(table["dataset"])
    subject, subjects = _encoded(table["subject"])
    validates = _each(table["split"], lambda name: name == SPLITS[1])
    person = dataset * len(subjects) + subject
    both = np.intersect1d(person[validates], person[~validates])
    if both.size:
        name = f"{datasets[both[0] // len(subjects)]}/{subjects[both[0] % len(subjects)]}"
        raise ShardError(
            f"{', '.join(map(str, folders))}: subject {name} trains in one shard set and validates in another; "
            "build them with the same --random_seed and --train_ratio, or as one set"
        )


def _encoded(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Codes and names of a text column, as they come."""
    encoded = column.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()


def _each(column: pa.ChunkedArray, value: Callable[[str], Any]) -> NDArray[Any]:
    """``value`` of each row's text, computed once for each different text."""
    codes, names = _encoded(column)
    return np.array([value(name) for name in names])[codes]


def _codes(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Codes of a text column by the sorted names that occur, and those names."""
    codes, names = _encoded(column)
    order = np.argsort(np.array(names, dtype=object)) if names else np.zeros(0, np.int64)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    present = np.unique(rank[codes])
    return np.searchsorted(present, rank[codes]), [names[order[i]] for i in present]


def _of_split(table: pa.Table, split: str | None) -> pa.Table:
    """The rows of a split; all of them for None."""
    if split is None or table.num_rows == 0:
        return table
    return table.filter(pa.array(_each(table["split"], split.__eq__)))


def _of_sensors(table: pa.Table, data: DataConfig) -> pa.Array:
    """Mask of the rows of the sensors asked for."""
    mask = np.ones(table.num_rows, bool)
    present = _encoded(table["sensor"])[1]
    if len(set(_sensor_names(data))) < len(_sensor_names(data)):
        raise ConfigError(f"data.sensors: {data.sensors} names a sensor twice")
    for name in _sensor_names(data) if data.sensors not in ("each", "all") else ():
        if name not in present:
            raise ConfigError(
                f"data.sensors: no sensor {name!r} in {', '.join(data.shards)}; there are {sorted(present)}"
            )
    if data.sensors == "each":
        if data.kinds:
            mask = mask & _each(table["kind"], data.kinds.__contains__)
    elif data.sensors != "all":
        mask = mask & _each(table["sensor"], _sensor_names(data).__contains__)
    return pa.array(mask)


def _sensor_names(data: DataConfig) -> list[str]:
    return [data.sensors] if isinstance(data.sensors, str) else list(data.sensors)


class _Chooser:
    """Builds the arrays of a :class:`Source` from the chosen rows."""

    def __init__(
        self, table: pa.Table, everything: pa.Table, folders: list[Path], identity: str, data: DataConfig
    ) -> None:
        self.table, self.everything, self.folders, self.identity, self.data = table, everything, folders, identity, data
        self.sensor, self.sensors = _codes(table["sensor"])
        self.dataset, self.datasets = _codes(table["dataset"])
        self.rate = table["rate_hz"].to_numpy()
        self.owned = table["owned_starts"].to_numpy()
        self.duration = np.maximum(1, np.rint(data.segment_duration * self.rate)).astype(np.int64)
        self.n_axes = _each(table["axes"], lambda axes: axes.count(",") + 1)
        self.shard, self.shards = self._shards()
        self.named: Statistics | None = None

    def source(self) -> Source:
        parts, column, n_columns = self._parts()
        rows, dtypes, channels = self._rows(joint=parts.shape[1] > 1)
        n_starts = self._n_starts(rows, parts)
        first = first_rows(parts)
        origin = {name: _each(self.table[name], str) for name in ("dataset", "subject", "recording", "sensor")}
        if not n_starts.any():
            raise ShardError(
                f"{', '.join(self.data.shards)}: no recording is as long as {self.data.segment_duration:g} s"
            )
        dataset, datasets = self._drawable(first, n_starts)
        parts, n_starts = parts[n_starts > 0], n_starts[n_starts > 0]
        drawable = first_rows(parts)
        shard_word = np.array([word(path.name) for path, _ in self.shards], np.uint64)
        items = Items(
            dataset=dataset,
            shard=self.shard[drawable],
            shard_word=shard_word,
            weight=self._weights(drawable, dataset, n_starts),
            n_starts=n_starts,
        )
        owned_s = self.owned[drawable] / self.rate[drawable]
        seconds = np.bincount(dataset, owned_s, len(datasets))
        return Source(
            shards=self.shards,
            rows=rows,
            parts=parts,
            column=column,
            items=items,
            seconds=tuple(seconds.tolist()),
            n_columns=n_columns,
            dtypes=dtypes,
            datasets=datasets,
            channels=channels,
            identity=self.identity,
            folders=tuple(self.folders),
            origin=origin,
            too_short=self._n_recordings(first) - self._n_recordings(drawable),
            vanished=tuple(sorted({self.datasets[d] for d in self.dataset[first]} - set(datasets))),
            statistics=self.named,
        )

    def _shards(self) -> tuple[Ints, tuple[tuple[Path, int], ...]]:
        of_set, (name, names) = self.table["set"].to_numpy(), _codes(self.table["shard"])
        _, first, codes = np.unique(of_set * len(names) + name, return_index=True, return_inverse=True)
        sizes = self.table["shard_bytes"].to_numpy()
        files = [(self.folders[of_set[i]] / names[name[i]], int(sizes[i])) for i in first]
        return codes.astype(np.int64), tuple(files)

    def _n_recordings(self, rows: Ints) -> int:
        recording, _ = _encoded(self.table["recording"])
        return len(np.unique(np.c_[self.dataset, recording][rows], axis=0))

    def _drawable(self, first: Ints, n_starts: Ints) -> tuple[Ints, tuple[str, ...]]:
        """Data set of each drawable item, and the names of the data sets that have one."""
        present, codes = np.unique(self.dataset[first][n_starts > 0], return_inverse=True)
        return codes.astype(np.int64), tuple(self.datasets[d] for d in present)

    def _parts(self) -> tuple[Ints, Ints, int]:
        """Rows of each item, first channel column of each part, number of columns."""
        n_axes = self.n_axes
        if self.data.sensors == "each":
            return np.arange(len(n_axes))[:, None], np.zeros(1, np.int64), int(n_axes.max())
        names = self.sensors if self.data.sensors == "all" else _sensor_names(self.data)
        parts = self._joined(names)
        widths = [int(n_axes[self.sensor == self.sensors.index(n)].max()) for n in names]
        return parts, np.cumsum([0, *widths[:-1]]).astype(np.int64), sum(widths)

    def _joined(self, names: list[str]) -> Ints:
        """A row for each sensor of each chunk, -1 where a chunk lacks one."""
        rank = np.array([names.index(s) if s in names else -1 for s in self.sensors])[self.sensor]
        key, _ = _encoded(self.table["key"])
        chunks, first, chunk = np.unique(np.c_[self.shard, key], axis=0, return_index=True, return_inverse=True)
        parts = np.full((len(chunks), len(names)), -1, np.int64)
        parts[chunk.reshape(-1), rank] = np.arange(len(rank))
        parts = parts[np.argsort(first, kind="stable")]
        rates = np.where(parts < 0, np.nan, self.rate[parts])
        mixed = np.nanmin(rates, axis=1) != np.nanmax(rates, axis=1)
        if mixed.any():
            found = sorted({float(r) for r in rates[mixed][0] if r > 0})
            raise ConfigError(
                f"data.sensors: {names} have rates {found} Hz in one recording; choose sensors of one rate"
            )
        return parts

    def _n_starts(self, rows: Rows, parts: Ints) -> Ints:
        """min(owned_starts, n_samples - S + 1), so that all sensors of an item hold the segment."""
        room = np.where(parts < 0, rows.n_samples.max(), (rows.n_samples - self.duration + 1)[parts]).min(axis=1)
        n_starts: Ints = np.maximum(0, np.minimum(self.owned[first_rows(parts)], room))
        return n_starts

    def _weights(self, first: Ints, dataset: Ints, n_starts: Ints) -> Floats:
        weight: Floats = n_starts / self.rate[first]
        if self.data.mixture.within == "subject":
            subject, _ = _codes(self.table["subject"])
            _, group = np.unique(np.c_[dataset, subject[first]], axis=0, return_inverse=True)
            weight = weight / np.bincount(group.reshape(-1), weight)[group.reshape(-1)]
        return weight

    def _rows(self, *, joint: bool) -> tuple[Rows, tuple[str, ...], tuple[str, ...]]:
        dtype, dtypes = _codes(self.table["dtype"])
        # Sensors drawn together are told apart by name, sensors drawn one at a time by kind.
        prefix, prefixes = _encoded(self.table["sensor" if joint else "kind"])
        axes, axis_names = _encoded(self.table["axes"])
        pair, row_pair = np.unique(np.c_[prefix, axes], axis=0, return_inverse=True)
        named = [[f"{prefixes[p]}.{axis}" for axis in axis_names[a].split(",")] for p, a in pair]
        channels = tuple(sorted({c for of in named for c in of}))
        most = int(self.n_axes.max())
        channel = np.array([[channels.index(c) for c in of] + [-1] * (most - len(of)) for of in named], np.int64)
        scale, zero = self._scaling(most)
        rows = Rows(
            shard=self.shard,
            offset=self.table["offset"].to_numpy(),
            n_samples=self.table["n_samples"].to_numpy(),
            first_sample=np.rint(self.table["start_s"].to_numpy() * self.rate).astype(np.int64),
            rate_hz=self.rate,
            window=np.minimum(self.duration, self.data.max_window_length),
            duration_s=np.minimum(self.data.segment_duration, self.data.max_window_length / self.rate),
            dtype=dtype,
            n_axes=self.n_axes,
            scale=scale,
            zero=zero,
            channel=channel[row_pair.reshape(-1)],
        )
        return rows, tuple(dtypes), channels

    def _scaling(self, most: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scale, zero = (_padded(self.table[name], most) for name in ("scale", "zero"))
        if self.data.normalize in ("recording", "dataset"):
            mean, std = self._statistics(most)
            scale, zero = scale / std, (zero - mean) / std
        return scale.astype(np.float32), zero.astype(np.float32)

    def _statistics(self, most: int) -> tuple[Floats, Floats]:
        """Mean and deviation for each row, (r, A): of its recording, or of its data set's training subjects, so that
        training and validation see one scale."""
        if self.data.normalize == "recording":
            return _pooled(self.table, self.table, ("dataset", "sensor", "recording"), most)
        training = _of_split(self.everything, SPLITS[0])
        training = training if training.num_rows else self.everything
        measured = _pooled(training, self.table, ("dataset", "sensor"), most)
        columns = [_encoded(self.table[name]) for name in ("dataset", "sensor", "axes")]
        mean, std, self.named = settled(columns, *measured, self.data.statistics)
        return mean, std


def _pooled(source: pa.Table, rows: pa.Table, by: tuple[str, ...], most: int) -> tuple[Floats, Floats]:
    """Mean and deviation of the groups of ``source``, pooled over chunks, for each of ``rows``; 0 and 1 where the
    group has no value there. The tables share their dictionaries."""
    keys = [np.c_[tuple(_encoded(table[name])[0] for name in by)] for table in (source, rows)]
    group = np.unique(np.concatenate(keys), axis=0, return_inverse=True)[1].reshape(-1)
    ours, theirs = group[: source.num_rows], group[source.num_rows :]
    n, mean, std = (_padded(source[name], most) for name in ("n_valid", "mean", "std"))

    def total(x: Floats) -> Floats:
        return np.stack([np.bincount(ours, x[:, a], group.max() + 1) for a in range(most)], axis=1)

    count = np.maximum(total(n), 1)
    centre = total(n * mean) / count
    variance = total(n * (std**2 + (mean - centre[ours]) ** 2)) / count
    return centre[theirs], np.where(variance > 0, np.sqrt(variance), 1.0)[theirs]


def first_rows(parts: Ints) -> Ints:
    """The row of the first sensor that each item has: starts count on its clock."""
    return np.take_along_axis(parts, np.argmax(parts >= 0, axis=1)[:, None], axis=1)[:, 0]


def _padded(column: Any, width: int) -> Floats:
    """A list column as (r, width), 0 where a list is shorter."""
    lists = column.combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    out = np.zeros((len(lengths), width))
    out[np.arange(width) < lengths[:, None]] = lists.flatten().to_numpy(zero_copy_only=False)
    return out
