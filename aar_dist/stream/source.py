"""What the configuration chooses from the shard sets.

    manifests + DataConfig + split -> Source: rows (a chunk of a sensor), items (what is drawn), data sets, channels

``each`` draws every row by itself. Several sensors draw the same seconds of a chunk: one item has a row for each, and
the channels of a sensor that a recording lacks are absent. A row costs some hundred bytes: what few rows differ in is
coded (columns.py), and manifests are read a column at a time.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from aar_dist.base.cache import Cache
from aar_dist.base.errors import ConfigError, ShardError
from aar_dist.base.hashing import word
from aar_dist.shards.format import SPLITS
from aar_dist.stream.columns import Coded, Codes, Floats, grouped, rising
from aar_dist.stream.config import DataConfig, Statistics
from aar_dist.stream.forms import forms_of, scaling_of
from aar_dist.stream.manifests import (
    Manifests,
    Mask,
    check_split,
    check_units,
    in_order,
    of_sensors,
    of_split,
    of_subjects,
    sensor_names,
)
from aar_dist.stream.staging import Shard
from aar_dist.stream.tape import Ints, Items


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Struct of arrays over the chosen manifest rows; r rows, A the most axes of any."""

    shard: Ints
    offset: Ints
    """(r,) first sample in the shard [bytes]."""
    n_samples: Ints
    first_sample: Ints
    """(r,) place of the first sample in the recording."""
    rate_hz: Coded
    window: Coded
    """(r,) samples of a segment handed on."""
    duration_s: Coded
    """(r,) length of a segment handed on, before it is rounded to samples."""
    dtype: Coded
    """(r,) index into ``dtypes``."""
    n_axes: Coded
    scale: Coded
    """(r, A) float32: stored value -> what the model sees, normalisation by statistics included; 0 beyond n_axes."""
    zero: Coded
    channel: Coded
    """(r, A) index into ``channels``; -1 beyond n_axes."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """All that a stream reads from, for one split."""

    shards: tuple[Shard, ...]
    cache: Cache | None
    """Where shards of URLs are kept; None if there are none."""
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
    folders: tuple[Path | str, ...]
    """The shard sets: folders, and URLs."""
    origin: dict[str, Coded]
    """dataset, subject, recording, sensor of each row."""
    too_short: int
    """Recordings without room for one segment."""
    vanished: tuple[str, ...]
    """Data sets all of whose recordings are too short."""
    statistics: Statistics | None = None
    """With ``normalize: dataset``: those that were told and those that were measured."""

    @property
    def frame_bytes(self) -> Ints:
        """(r,) bytes of one sample of all axes."""
        itemsize = np.array([np.dtype(d).itemsize for d in self.dtypes])
        return itemsize[self.rows.dtype] * self.rows.n_axes

    def subjects(self) -> list[str]:
        """``<data set>/<subject>`` of all that is chosen."""
        (dataset, of), (subject, names) = (
            (c.codes, c.values) for c in map(self.origin.get, ("dataset", "subject")) if c
        )
        _, first = grouped(dataset, subject)
        return sorted(f"{of[dataset[i]]}/{names[subject[i]]}" for i in first.tolist())

    def told(self) -> list[dict[str, Any]]:
        """Each shard set: where it is (``url``), its ``identity``, and the sha256 of its ``shards`` that are read."""
        identities = dict(zip(map(str, self.folders), self.identity.split("+"), strict=False))
        return [
            {"url": where, "identity": identities.get(where, ""), "shards": {s.name: s.sha256 for s in of}}
            for where in map(str, self.folders)
            if (of := [s for s in self.shards if str(s.where) == where])
        ]


def open_source(data: DataConfig, split: str | None, *, fit: Collection[str] | None = None) -> Source:
    """Read the manifests and choose what the configuration asks for, of one split or (None) of all subjects.

    Args:
        fit: With ``normalize: dataset``, the subjects (``herd/12``) whose statistics are measured; None for those of
            the train split. A data set that has none of them is measured as a whole.
    """
    manifests = Manifests(data)
    check_split(manifests)
    wanted = of_sensors(manifests, data)
    chosen = wanted & of_split(manifests, split)
    if not chosen.any():
        raise ShardError(
            f"{', '.join(data.shards)}: no {split or 'recorded'} data of sensors {data.sensors!r}"
            + (f", kinds {data.kinds}" if data.sensors == "each" else "")
            + "; see `aar-dist inspect` for what there is"
        )
    source = _Chooser(manifests, _fitted(manifests, wanted, data, fit), in_order(manifests, chosen), data).source()
    manifests.release()
    return source


def _fitted(manifests: Manifests, wanted: Mask, data: DataConfig, fit: Collection[str] | None) -> Mask:
    """Those of the chosen rows that statistics of data sets are measured on."""
    if data.normalize != "dataset":
        return wanted
    fitted = wanted & (of_split(manifests, SPLITS[0]) if fit is None else of_subjects(manifests, fit))
    return fitted if fitted.any() else wanted


def has_split(data: DataConfig, split: str) -> bool:
    """True if the shard sets hold data of the chosen sensors in this split."""
    manifests = Manifests(data)
    return bool((of_sensors(manifests, data) & of_split(manifests, split)).any())


class _Chooser:
    """Builds the arrays of a :class:`Source` from the chosen rows of the manifests.

    Args:
        fitted: Rows of the chosen sensors whose statistics a data set is normalised by, whatever their split.
        rows: (r,) those of the split, in order.
    """

    def __init__(self, manifests: Manifests, fitted: Mask, rows: Ints, data: DataConfig) -> None:
        self.manifests, self.fitted, self.rows, self.data = manifests, fitted, rows, data
        self.sensor, self.sensors = self._rising("sensor")
        self.dataset, self.datasets = self._rising("dataset")
        self.shard, self.shards = self._shards()
        self.names = self.sensors if data.sensors == "all" else sensor_names(data)
        joint = data.sensors != "each" and len(self.names) > 1
        check_units(manifests, rows, data, joint=joint)
        self.forms = forms_of(manifests, rows, data, joint=joint)
        self.named: Statistics | None = None

    def _rising(self, name: str) -> tuple[Codes, list[str]]:
        codes, names = self.manifests.names(name)
        return rising(codes[self.rows], names)

    def source(self) -> Source:
        parts, column, n_columns = self._parts()
        n_starts = self._n_starts(parts)
        if not n_starts.any():
            raise ShardError(
                f"{', '.join(self.data.shards)}: no recording is as long as {self.data.segment_duration:g} s"
            )
        origin = {name: self._origin(name) for name in ("dataset", "subject", "recording", "sensor")}
        first = first_rows(parts)
        dataset, datasets = self._drawable(first, n_starts)
        recording, _ = grouped(self.dataset, origin["recording"].codes)
        n_recordings = _count(recording[first])
        if not n_starts.all():  # copies of a million rows each
            parts, n_starts = parts[n_starts > 0], n_starts[n_starts > 0]
        drawable = first_rows(parts)
        rows = self._rows()
        return Source(
            shards=self.shards,
            cache=self.manifests.cache,
            parts=parts,
            column=column,
            items=self._items(drawable, dataset, n_starts, origin["subject"].codes),
            seconds=self._seconds(drawable, dataset),
            n_columns=n_columns,
            dtypes=self.forms.dtypes,
            datasets=datasets,
            channels=self.forms.channels,
            identity=self.manifests.identity,
            folders=tuple(self.manifests.folders),
            origin=origin,
            too_short=n_recordings - _count(recording[drawable]),
            vanished=tuple(sorted({self.datasets[d] for d in np.unique(self.dataset[first])} - set(datasets))),
            rows=rows,
            statistics=self.named,
        )

    def _items(self, drawable: Ints, dataset: Ints, n_starts: Ints, subject: Codes) -> Items:
        weight = n_starts / self._rate(drawable)
        if self.data.mixture.within == "subject":
            group, _ = grouped(dataset, subject[drawable])
            weight = weight / np.bincount(group, weight)[group]
        return Items(
            dataset=dataset,
            shard=self.shard[drawable] if len(drawable) < len(self.shard) else self.shard,  # each row an item
            shard_word=np.array([word(shard.name) for shard in self.shards], np.uint64),
            weight=weight,
            n_starts=n_starts,
        )

    def _seconds(self, drawable: Ints, dataset: Ints) -> tuple[float, ...]:
        """Recorded time of each data set [s]."""
        owned_s = self._numbers("owned_starts")[drawable].astype(np.float64)
        owned_s /= self._rate(drawable)
        return tuple(np.bincount(dataset, owned_s).tolist())

    def _rate(self, rows: Ints) -> Floats:
        rate: Floats = self.forms.rate_hz[self.forms.of_row[rows]]
        return rate

    def _numbers(self, name: str) -> NDArray[Any]:
        return self.manifests.numbers(name)[self.rows]

    def _shards(self) -> tuple[Ints, tuple[Shard, ...]]:
        """Shard of each row; the shards by set and name."""
        name, names = self._rising("shard")
        of_set = self.manifests.of_set[self.rows]
        code = of_set.astype(np.int64) * len(names) + name
        starts = np.flatnonzero(np.diff(code, prepend=-1))  # rows of a shard stand together
        _, first, number = np.unique(code[starts], return_index=True, return_inverse=True)
        rows = starts[first]
        sizes = self.manifests.numbers("shard_bytes")[self.rows[rows]]
        sha256, hashes = self.manifests.names("sha256")
        where = [str(folder) for folder in self.manifests.folders]
        files = [
            Shard(names[name[i]], int(size), hashes[code], where[of_set[i]])
            for i, size, code in zip(rows, sizes, sha256[self.rows[rows]], strict=True)
        ]
        return np.repeat(number.astype(np.int64), np.diff(starts, append=len(code))), tuple(files)

    def _drawable(self, first: Ints, n_starts: Ints) -> tuple[Ints, tuple[str, ...]]:
        """Data set of each drawable item, and the names of the data sets that have one."""
        codes, names = rising(self.dataset[first][n_starts > 0], self.datasets)
        return codes.astype(np.int64), tuple(names)

    def _parts(self) -> tuple[Ints, Ints, int]:
        """Rows of each item, first channel column of each part, number of columns."""
        if self.data.sensors == "each":
            return np.arange(len(self.rows))[:, None], np.zeros(1, np.int64), int(self.forms.n_axes.max())
        n_axes = self.forms.each(self.forms.n_axes)
        widths = [int(n_axes[self.sensor == self.sensors.index(n)].max()) for n in self.names]
        return self._joined(), np.cumsum([0, *widths[:-1]]).astype(np.int64), sum(widths)

    def _joined(self) -> Ints:
        """A row for each sensor of each chunk, -1 where a chunk lacks one."""
        rank = np.array([self.names.index(s) for s in self.sensors])[self.sensor]
        key = self.manifests.column("key").take(self.rows).combine_chunks()
        other_key = pc.not_equal(key[1:], key[:-1]).to_numpy(zero_copy_only=False)
        chunk = np.cumsum(np.append(False, other_key | (np.diff(self.shard) != 0)))  # rows of a chunk stand together
        parts = np.full((chunk[-1] + 1, len(self.names)), -1, np.int64)
        parts[chunk, rank] = np.arange(len(rank))
        rates = np.where(parts < 0, np.nan, self.forms.rate_hz[self.forms.of_row[parts]])
        mixed = np.nanmin(rates, axis=1) != np.nanmax(rates, axis=1)
        if mixed.any():
            found = sorted({float(r) for r in rates[mixed][0] if r > 0})
            raise ConfigError(
                f"data.sensors: {self.names} have rates {found} Hz in one recording; choose sensors of one rate"
            )
        return parts

    def _n_starts(self, parts: Ints) -> Ints:
        """min(owned_starts, n_samples - S + 1), so that all sensors of an item hold the segment."""
        room = self._numbers("n_samples")
        room += 1 - self.forms.duration[self.forms.of_row]
        n_starts: Ints = self._numbers("owned_starts")[first_rows(parts)]
        for part in parts.T:
            np.minimum(n_starts, room[part], out=n_starts, where=part >= 0)
        return np.maximum(0, n_starts)

    def _origin(self, name: str) -> Coded:
        codes, names = self._rising(name)
        return Coded(codes, np.array(names))

    def _rows(self) -> Rows:
        forms, manifests, most = self.forms, self.manifests, int(self.forms.n_axes.max())
        scale, zero, self.named = scaling_of(manifests, self.fitted, self.rows, most, self.data)
        return Rows(
            shard=self.shard,
            offset=self._numbers("offset"),
            n_samples=self._numbers("n_samples"),
            first_sample=np.rint(self._numbers("start_s") * forms.rate_hz[forms.of_row]).astype(np.int64),
            rate_hz=forms.each(forms.rate_hz),
            window=forms.each(forms.window),
            duration_s=forms.each(forms.duration_s),
            dtype=forms.each(forms.dtype),
            n_axes=forms.each(forms.n_axes),
            scale=scale,
            zero=zero,
            channel=forms.each(forms.channel),
        )


def _count(codes: Codes) -> int:
    """How many different codes there are."""
    return int(np.count_nonzero(np.bincount(codes)))


def first_rows(parts: Ints) -> Ints:
    """The row of the first sensor that each item has: starts count on its clock."""
    if parts.shape[1] == 1:
        return parts[:, 0]
    return np.take_along_axis(parts, np.argmax(parts >= 0, axis=1)[:, None], axis=1)[:, 0]
