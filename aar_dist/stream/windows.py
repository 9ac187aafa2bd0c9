"""Labelled windows: a grid over every recording, and the label of each window.

    items + label runs -> label_map.py -> WindowTable -> select subjects -> window_order.py -> SegmentStream

A window carries a label if that label covers enough of it. With ``min_share`` 1 it has one label and nothing
unlabelled, the rule of the first system.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aar_dist.base.errors import ConfigError
from aar_dist.shards.format import read_info, read_labels
from aar_dist.stream.columns import Floats
from aar_dist.stream.config import DataConfig
from aar_dist.stream.label_map import LabelMap, Unlisted
from aar_dist.stream.loader import SegmentStream
from aar_dist.stream.source import Source, first_rows, open_source
from aar_dist.stream.tape import Ints
from aar_dist.stream.window_order import BalancedOrder, Sampling, WindowOrder

Names = NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Where windows lie and which of them carry a label."""

    hop_s: float | None = None
    """From one window to the next [s]; null for data.segment_duration, windows that do not overlap."""
    min_share: float = 1.0
    """Share of a window that its label must cover."""
    classes: list[str] | None = None
    """Classes, in the order of their numbers; what is labelled otherwise is left out. Null for all there are."""
    map: dict[str, Any] = field(default_factory=dict)
    """New name -> classes of the recordings, ``Class`` or ``<data set>/Class``; or data set -> such a map. Labels are
    renamed before windows are cut; ``classes`` chooses from the new names. Empty: as they are."""
    unlisted: Unlisted = "drop"
    """With ``map``: what it does not list is unlabelled (``drop``), or stays as it is (``keep``)."""
    datasets: list[str] | None = None
    """Data sets whose windows are taken: two may call different things by one name. Null for all there are."""

    def __post_init__(self) -> None:
        if self.hop_s is not None and self.hop_s <= 0:
            raise ConfigError(f"windows.hop_s must be positive, got {self.hop_s}")
        if not 0.5 < self.min_share <= 1:
            raise ConfigError(f"windows.min_share must lie in (0.5, 1], so that one label wins; got {self.min_share}")
        LabelMap.of(self.map, self.unlisted)

    def label_map(self) -> LabelMap | None:
        """What labels are called instead; None for their own names."""
        return LabelMap.of(self.map, self.unlisted)


@dataclass(frozen=True, kw_only=True)
class WindowTable:
    """Windows in the order of data set, recording and time; n of them."""

    item: Ints
    start: Ints
    """(n,) first sample within the item."""
    label: NDArray[Any]
    """(n,) int64 class, or float32 target."""
    dataset: Names
    subject: Names
    """(n,) with its data set in front, ``herd/12``: names of subjects are unique within a data set only."""
    recording: Names
    start_s: Floats
    """(n,) in the recording."""
    stop_s: Floats
    classes: tuple[str, ...] | None
    """None where the label is a target."""

    def __len__(self) -> int:
        return len(self.item)

    def select(self, mask: NDArray[Any]) -> "WindowTable":
        """The windows of a mask or at some indices."""
        names = ("item", "start", "label", "dataset", "subject", "recording", "start_s", "stop_s")
        return replace(self, **{name: getattr(self, name)[mask] for name in names})


def label_windows(source: Source, data: DataConfig, config: WindowConfig, *, unlabelled: bool = False) -> WindowTable:
    """All windows that carry a label, of a source of all subjects. Raises ``ConfigError`` if there are none.

    ``unlabelled`` keeps the others too, with the label -1 or NaN.
    """
    item, start = _grid(source, config.hop_s or data.segment_duration)
    row = first_rows(source.parts)[item]
    if config.datasets:
        _check_datasets(source, config.datasets)
        taken = np.isin(source.origin["dataset"][row], config.datasets)
        item, start, row = item[taken], start[taken], row[taken]
    start_s = (source.rows.first_sample[row] + start) / source.rows.rate_hz[row]
    stop_s = start_s + data.segment_duration
    runs = [run for run in _label_runs(source, config) if not config.datasets or run["dataset"] in config.datasets]
    classes = _classes(runs, config)
    place = {name: source.origin[name][row] for name in ("dataset", "subject", "recording")}
    label, share = _labels(runs, classes, place, start_s, stop_s)
    # Windows and labels have clocks of their own: half a sample is not a missing label.
    enough = share >= config.min_share - 0.5 / (data.segment_duration * source.rows.rate_hz[row])
    if unlabelled:
        label[~enough] = -1 if classes is not None else np.nan
        enough[:] = True
    if not enough.any():
        raise ConfigError(
            f"{', '.join(data.shards)}: no window of {data.segment_duration:g} s carries one of the labels "
            f"{list(classes or ())}; see `aar-dist inspect` for the labels there are, or lower windows.min_share"
        )
    table = WindowTable(
        item=item,
        start=start,
        label=label,
        dataset=place["dataset"],
        subject=np.char.add(np.char.add(place["dataset"], "/"), place["subject"]),
        recording=place["recording"],
        start_s=start_s,
        stop_s=stop_s,
        classes=classes,
    ).select(enough)
    return table.select(np.lexsort((table.start_s, table.recording, table.dataset)))


def open_windows(data: DataConfig, config: WindowConfig, *, unlabelled: bool = False) -> tuple[Source, WindowTable]:
    """The labelled windows of all subjects, or with ``unlabelled`` every window, and what they are cut from."""
    source = open_source(data, None)
    return source, label_windows(source, data, config, unlabelled=unlabelled)


def _grid(source: Source, hop_s: float) -> tuple[Ints, Ints]:
    """(item, start within it) of the windows that start at round(k · hop · rate) of their recording."""
    row = first_rows(source.parts)
    first, n, hop = source.rows.first_sample[row], source.items.n_starts, hop_s * source.rows.rate_hz[row]
    # One window too many on either side of each item; those outside are dropped.
    low = np.floor(first / hop).astype(np.int64)
    count = np.ceil((first + n) / hop).astype(np.int64) + 1 - low
    item = np.repeat(np.arange(len(row)), count)
    k = np.arange(len(item)) - np.repeat(np.cumsum(count) - count, count) + low[item]
    start = np.rint(k * hop[item]).astype(np.int64) - first[item]
    inside = (start >= 0) & (start < n[item])
    return item[inside], start[inside]


def _check_datasets(source: Source, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in source.datasets]
    if unknown:
        raise ConfigError(
            f"windows.datasets: no data set {unknown[0]!r} in the shards; there are {list(source.datasets)}"
        )


def _label_runs(source: Source, config: WindowConfig) -> list[dict[str, Any]]:
    """All of them, under the names that the configuration gives them."""
    tables = [read_labels(folder, read_info(folder), source.cache) for folder in source.folders]
    _check_apart(tables, source)
    runs: list[dict[str, Any]] = pa.concat_tables(tables).unify_dictionaries().to_pylist()
    if renaming := config.label_map():
        renaming.check(runs)
        runs = renaming.relabelled(runs)
    return runs


def _check_apart(tables: Sequence[pa.Table], source: Source) -> None:
    """Labels find their recording by its name: two shard sets that both have it would mix theirs."""
    where: dict[tuple[str, str], object] = {}
    for folder, table in zip(source.folders, tables, strict=True):
        for row in table.group_by(["dataset", "recording"]).aggregate([]).to_pylist():
            place = (row["dataset"], row["recording"])
            if where.setdefault(place, folder) != folder:
                raise ConfigError(
                    f"data.shards: recording {'/'.join(place)} has labels in {where[place]} and in {folder}; if it is "
                    "one, name one of the sets, if they are two, give the data sets names of their own"
                )


def _classes(runs: Sequence[dict[str, Any]], config: WindowConfig) -> tuple[str, ...] | None:
    found = sorted({run["class"] for run in runs if run["class"] is not None})
    missing = [name for name in config.classes or () if name not in found]
    if missing:
        mapped = ", as windows.map names them" if config.map else ""
        raise ConfigError(f"windows.classes: no label {missing[0]!r} in the shards; there are {found}{mapped}")
    if config.classes or found:
        return tuple(config.classes or found)
    return None


def _labels(
    runs: Sequence[dict[str, Any]],
    classes: tuple[str, ...] | None,
    place: dict[str, Names],
    start_s: Floats,
    stop_s: Floats,
) -> tuple[NDArray[Any], Floats]:
    """Label of each window, and the share of it that the label covers."""
    label = np.full(len(start_s), -1, np.int64) if classes is not None else np.full(len(start_s), np.nan, np.float32)
    share = np.zeros(len(start_s))
    of_recording: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        of_recording.setdefault((run["dataset"], run["recording"]), []).append(run)
    keys = np.char.add(np.char.add(place["dataset"], "\0"), place["recording"])
    order = np.argsort(keys, kind="stable")
    for at in np.split(order, np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1):
        here = of_recording.get((str(place["dataset"][at[0]]), str(place["recording"][at[0]])), [])
        of = class_of if classes is not None else target_of
        label[at], share[at] = of(here, classes or (), start_s[at], stop_s[at])
    return label, share


def class_of(
    runs: Sequence[dict[str, Any]], classes: Sequence[str], start_s: Floats, stop_s: Floats
) -> tuple[Ints, Floats]:
    """The class that covers most of each window."""
    covered = np.stack(
        [_covered([r for r in runs if r["class"] == name], start_s, stop_s) for name in classes] or [start_s * 0]
    )
    best = covered.argmax(axis=0)
    return best, covered[best, np.arange(len(start_s))] / (stop_s - start_s)


def target_of(
    runs: Sequence[dict[str, Any]], classes: Sequence[str], start_s: Floats, stop_s: Floats
) -> tuple[Floats, Floats]:
    """The mean of the target over the labelled part of each window."""
    seconds = _covered(runs, start_s, stop_s)
    total = _covered(runs, start_s, stop_s, weights=[run["value"] for run in runs])
    return total / np.where(seconds > 0, seconds, 1.0), seconds / (stop_s - start_s)


def _covered(
    runs: Sequence[dict[str, Any]], start_s: Floats, stop_s: Floats, weights: Sequence[float] | None = None
) -> Floats:
    """Time [s] of the runs inside each window (times their weights): a difference of the running total."""
    if not runs:
        return np.zeros(len(start_s))
    edges = np.array([[run["start_s"], run["stop_s"]] for run in runs])
    gain = np.diff(edges, axis=1)[:, 0] * (1.0 if weights is None else np.asarray(weights))
    total = np.cumsum(gain)
    running = np.stack([total - gain, total], axis=1).reshape(-1)
    inside: Floats = np.interp(stop_s, edges.reshape(-1), running) - np.interp(start_s, edges.reshape(-1), running)
    return inside


def window_stream(
    source: Source,
    table: WindowTable,
    data: DataConfig,
    *,
    shuffle: bool,
    sampling: Sampling = "natural",
    rank: int = 0,
    world_size: int = 1,
    origins: bool = False,
) -> SegmentStream:
    """A stream of these windows; ``sampling`` is that of a shuffled one."""
    kind = BalancedOrder if shuffle and sampling == "balanced" else WindowOrder
    order = kind(table, seed=data.random_seed, shuffle=shuffle)
    return SegmentStream(source, order, data, rank=rank, world_size=world_size, origins=origins)
