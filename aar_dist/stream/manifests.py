"""The manifests of all shard sets as one table, and which of its rows a configuration asks for.

    shard sets -> Manifests (columns read when asked for) -> mask of the sensors, mask of the split -> rows in order

Rows are ordered by data set, shard set, shard and offset, which nothing but their names decides.
"""

import ctypes
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aar_dist.base.cache import Cache
from aar_dist.base.errors import ConfigError, ShardError
from aar_dist.base.remote import is_url
from aar_dist.recordings.units import unit_handed_on
from aar_dist.shards.format import SPLITS, CheckedParquet, open_manifest, read_info
from aar_dist.stream.columns import Coded, Codes, distinct, encoded, grouped, padded, rising
from aar_dist.stream.config import DataConfig
from aar_dist.stream.tape import Ints

Mask = NDArray[np.bool_]


class Manifests:
    """The manifests of all shard sets, one behind the other; r rows in all."""

    def __init__(self, data: DataConfig) -> None:
        if not data.shards:
            raise ConfigError(
                "data.shards is empty, expected at least one shard set (a folder made by shards/build.py)"
            )
        self.folders: list[Path | str] = []
        """Shard sets: folders, and URLs."""
        self.cache = cache_of(data)
        self._files: list[CheckedParquet] = []
        identities: list[str] = []
        for name in data.shards:
            folder = name if is_url(name) else Path(name)
            info = read_info(folder)
            _check_duration(folder, info, data.segment_duration)
            self._files.append(open_manifest(folder, info, self.cache))
            if info["identity"] in identities:
                raise ConfigError(
                    f"data.shards: {folder} is the same shard set as {self.folders[identities.index(info['identity'])]}"
                    "; name each once (data.mixture decides how often it is drawn)"
                )
            self.folders.append(folder)
            identities.append(info["identity"])
        self.identity = "+".join(identities)
        n_rows = [file.n_rows for file in self._files]
        self.of_set = np.repeat(np.arange(len(n_rows), dtype=np.int16), n_rows)
        """(r,) number of the shard set."""

    def __str__(self) -> str:
        return ", ".join(map(str, self.folders))

    def column(self, name: str) -> pa.ChunkedArray:
        """A column as stored."""
        self.release()
        chunks = [chunk for file in self._files for chunk in file.read([name])[name].chunks]
        return pa.chunked_array(chunks)

    def release(self) -> None:
        """Give back the memory of the columns read before, 70 MB at a million rows, and of what was made of them."""
        pa.default_memory_pool().release_unused()
        with suppress(AttributeError):  # glibc's
            ctypes.CDLL(None).malloc_trim(0)

    def names(self, name: str) -> tuple[Codes, list[str]]:
        """Codes (r,) and names of a text column, as they come."""
        return encoded(self.column(name))

    def numbers(self, name: str) -> NDArray[Any]:
        """A column of numbers, (r,)."""
        numbers: NDArray[Any] = self.column(name).to_numpy()
        return numbers

    def lists(self, name: str, width: int) -> NDArray[Any]:
        """A column of lists as (r, width), 0 where one is shorter."""
        return padded(self.column(name), width)

    def coded_lists(self, name: str, width: int) -> Coded:
        """A column of lists with few different rows, (r, width), read piece by piece."""
        self.release()
        codes, values = [np.zeros(0, np.int32)], [np.zeros((0, width))]
        for piece in (piece for file in self._files for piece in file.pieces(name)):
            rows = padded(piece, width)
            code, first = distinct(rows)
            codes.append(code + sum(map(len, values)))
            values.append(rows[first])
        self.release()
        code, first = distinct(np.concatenate(values))
        return Coded(code[np.concatenate(codes)], np.concatenate(values)[first])

    def where(self, name: str, wanted: Callable[[str], bool]) -> Mask:
        """(r,) rows whose text in this column is wanted."""
        codes, names = self.names(name)
        return np.array([wanted(text) for text in names], bool)[codes]


def cache_of(data: DataConfig) -> Cache | None:
    """The cache, where there is a shard set to be read from a URL."""
    return Cache.of(data.cache, data.cache_bytes) if any(map(is_url, data.shards)) else None


def _check_duration(folder: Path | str, info: dict[str, Any], segment_duration: float) -> None:
    longest = info["options"]["longest_segment_s"]
    if segment_duration > longest:
        raise ConfigError(
            f"data.segment_duration is {segment_duration:g} s, but {folder} was built for segments up to "
            f"{longest:g} s; build it again with --longest_segment_s {segment_duration:g}"
        )


def check_split(manifests: Manifests) -> None:
    """A subject trains or validates, in whichever shard sets it stands."""
    (dataset, datasets), (subject, subjects) = manifests.names("dataset"), manifests.names("subject")
    validates = manifests.where("split", SPLITS[1].__eq__)
    person, first = grouped(dataset, subject)
    sides = [np.bincount(person[side], minlength=len(first)) > 0 for side in (validates, ~validates)]
    both = first[sides[0] & sides[1]]
    if both.size:
        name = min(f"{datasets[dataset[i]]}/{subjects[subject[i]]}" for i in both)
        raise ShardError(
            f"{manifests}: subject {name} trains in one shard set and validates in another; "
            "build them with the same --random_seed and --train_ratio, or as one set"
        )


def check_units(manifests: Manifests, rows: Ints, data: DataConfig, *, joint: bool) -> None:
    """What shares a channel has one unit, or is normalised by its own statistics. Raises ``ConfigError``.

    Args:
        joint: Whether channels are named by sensor, not by kind (:func:`forms_of`).
    """
    unit, units = manifests.names("units")
    if data.normalize not in ("none", "centre") or len(units) == 1:
        return
    by = "sensor" if joint else "kind"
    (of, names), (kind, kinds) = manifests.names(by), manifests.names("kind")
    _, first = grouped(of[rows], kind[rows], unit[rows])
    dataset, datasets = manifests.names("dataset")
    seen: dict[str, tuple[str, str]] = {}
    for row in rows[first].tolist():
        name, here = names[of[row]], (unit_handed_on(kinds[kind[row]], units[unit[row]]), datasets[dataset[row]])
        there = seen.setdefault(name, here)
        if there[0] != here[0]:
            raise ConfigError(
                f"data.normalize {data.normalize}: {name} is {there[0]} in {there[1]} and {here[0]} in {here[1]}; set "
                "data.normalize to segment, recording or dataset, or draw one of them (data.kinds, data.sensors)"
            )


def of_split(manifests: Manifests, split: str | None) -> Mask:
    """The rows of a split; all of them for None."""
    if split is None:
        return np.ones(len(manifests.of_set), bool)
    return manifests.where("split", split.__eq__)


def of_subjects(manifests: Manifests, subjects: Collection[str]) -> Mask:
    """The rows of these subjects (``herd/12``), and of the data sets that have none of them."""
    (dataset, datasets), (subject, names) = manifests.names("dataset"), manifests.names("subject")
    person, first = grouped(dataset, subject)
    told = np.array([f"{datasets[dataset[i]]}/{names[subject[i]]}" in subjects for i in first.tolist()])
    met = np.bincount(dataset[first], told, len(datasets)) > 0
    mask: Mask = told[person] | ~met[dataset]
    return mask


def of_sensors(manifests: Manifests, data: DataConfig) -> Mask:
    """The rows of the sensors asked for."""
    wanted = sensor_names(data)
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"data.sensors: {data.sensors} names a sensor twice")
    if data.sensors == "each" and data.kinds:
        return manifests.where("kind", data.kinds.__contains__)
    if data.sensors in ("each", "all"):
        return np.ones(len(manifests.of_set), bool)
    present = manifests.names("sensor")[1]
    for name in wanted:
        if name not in present:
            raise ConfigError(
                f"data.sensors: no sensor {name!r} in {', '.join(data.shards)}; there are {sorted(present)}"
            )
    return manifests.where("sensor", wanted.__contains__)


def sensor_names(data: DataConfig) -> list[str]:
    """``data.sensors`` as a list."""
    return [data.sensors] if isinstance(data.sensors, str) else list(data.sensors)


def in_order(manifests: Manifests, mask: Mask) -> Ints:
    """The rows of a mask by data set, shard set, shard and offset."""
    rows = np.flatnonzero(mask)
    dataset, _ = rising(*manifests.names("dataset"))
    shard, shards = rising(*manifests.names("shard"))
    n_sets = len(manifests.folders)
    key = ((dataset.astype(np.int64) * n_sets + manifests.of_set) * len(shards) + shard)[rows]
    offset = manifests.numbers("offset")[rows]
    step = np.diff(key)
    if ((step > 0) | ((step == 0) & (np.diff(offset) > 0))).all():
        return rows  # as the build writes them: sorting a million takes longer than all the rest
    sorted_rows: Ints = rows[np.lexsort((offset, key))]
    return sorted_rows
