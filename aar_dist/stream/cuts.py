"""Which gathers a micro-batch is made of, worked out for many at once: one by one it would cost as much as cutting.

    refs of m micro-batches -> parts (a manifest row and a start) -> groups of one kind -> runs out of one shard

B segments, k parts of an item, C channels
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aar_dist.stream.buffers import send
from aar_dist.stream.source import Source, first_rows
from aar_dist.stream.tape import Ints, SegmentRefs

SHORT_RUN = 4  # parts: where gathers move fewer on average, and sorting makes as many times fewer of them, it pays

Run = tuple[int, int]
"""A shard, and how many parts in a row lie in it."""


@dataclass(frozen=True)
class Kind:
    """What parts have in common that are gathered together."""

    column: int
    """First channel column."""
    dtype: str
    n_samples: int
    n_axes: int
    scale: torch.Tensor | None
    """(1, A) float32, where all rows of this kind have one; None where they differ."""
    zero: torch.Tensor | None


@dataclass(frozen=True)
class GroupPlan:
    """The parts of one kind in a micro-batch; n parts."""

    kind: Kind
    first: torch.Tensor
    """(n,) element at which each part starts."""
    place: torch.Tensor | None
    """(n,) row of the batch; None where the parts are the batch's rows in order."""
    runs: tuple[Run, ...]
    scale: torch.Tensor
    """(1 or n, A) float32."""
    zero: torch.Tensor


@dataclass(frozen=True)
class BatchPlan:
    """All that a prefetch thread needs to cut a micro-batch."""

    refs: SegmentRefs
    groups: tuple[GroupPlan, ...]
    n_samples: int
    """Longest segment."""
    channel: torch.Tensor
    """(B, C)."""
    rate_hz: torch.Tensor
    dataset: torch.Tensor
    key: torch.Tensor
    label: torch.Tensor | None
    duration_s: tuple[float, ...]
    lengths: tuple[int, ...]
    """Samples of each segment."""
    channels: tuple[str, ...]
    """Names of ``channel``."""


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The parts of all micro-batches, sorted by (micro-batch, kind), and by shard within where that saves gathers."""

    row: Ints
    place: Ints
    first: Ints
    group: Ints
    """Micro-batch · number of kinds + kind."""
    shard: Ints
    in_order: bool
    """True if the parts of a group stand in the order of the batch."""


class Planner:
    """Plans the cuts of a source whose rows begin at these elements: of their shards, or of one flat tensor."""

    def __init__(self, source: Source, first: Ints, *, flat: bool) -> None:
        self._source, self._first = source, first
        self._shard = np.zeros_like(source.rows.shard) if flat else source.rows.shard
        self._kind, self._kinds = _kinds(source)
        self._rate_hz, self._n_axes = source.rows.rate_hz.astype(np.float32), source.rows.n_axes

    def plan(self, refs: Sequence[SegmentRefs]) -> list[BatchPlan]:
        """One plan for each micro-batch; all have B segments."""
        s = self._source
        item, start = (np.stack([getattr(r, name) for r in refs]) for name in ("item", "start"))
        part_rows = s.parts[item.reshape(-1)]  # (m·B, k)
        lead = first_rows(part_rows).reshape(item.shape)
        groups = self._groups(part_rows, start)
        channel = torch.from_numpy(channels_of(s, part_rows)).view(*item.shape, -1)
        rate_hz, dataset = (torch.from_numpy(x) for x in (self._rate_hz[lead], s.items.dataset[item]))
        key = torch.from_numpy(np.stack([r.key for r in refs]).view(np.int64))
        durations = [_numbers(row) for row in s.rows.duration_s[lead]]
        lengths = [_numbers(row) for row in s.rows.window[lead]]
        return [
            BatchPlan(
                refs=ref,
                groups=groups[i],
                n_samples=max(g.kind.n_samples for g in groups[i]),
                channel=channel[i],
                rate_hz=rate_hz[i],
                dataset=dataset[i],
                key=key[i],
                label=None if ref.label is None else torch.from_numpy(ref.label),
                duration_s=durations[i],
                lengths=lengths[i],
                channels=s.channels,
            )
            for i, ref in enumerate(refs)
        ]

    def _groups(self, part_rows: Ints, start: Ints) -> list[tuple[GroupPlan, ...]]:
        """The groups of each micro-batch."""
        parts = self._sorted(part_rows, start)
        ends = np.flatnonzero(_steps(parts.group, parts.shard)) + 1
        begins = np.r_[0, ends]
        sizes = np.diff(begins, append=len(parts.group)).tolist()
        runs = zip(parts.group[begins].tolist(), parts.shard[begins].tolist(), sizes, strict=True)
        groups: list[list[GroupPlan]] = [[] for _ in start]
        low = 0
        for group, of_group in groupby(runs, key=itemgetter(0)):
            batch, kind = divmod(group, len(self._kinds))
            mine = tuple((shard, size) for _, shard, size in of_group)
            high = low + sum(size for _, size in mine)
            groups[batch].append(self._group(self._kinds[kind], parts, slice(low, high), mine, start.shape[1]))
            low = high
        return [tuple(g) for g in groups]

    def _group(self, kind: Kind, parts: _Parts, at: slice, runs: tuple[Run, ...], batch_size: int) -> GroupPlan:
        rows, table = parts.row[at], self._source.rows
        whole = parts.in_order and len(rows) == batch_size
        return GroupPlan(
            kind=kind,
            first=torch.from_numpy(parts.first[at]),
            place=None if whole else torch.from_numpy(parts.place[at]),
            runs=runs,
            scale=torch.from_numpy(table.scale[rows, : kind.n_axes]) if kind.scale is None else kind.scale,
            zero=torch.from_numpy(table.zero[rows, : kind.n_axes]) if kind.zero is None else kind.zero,
        )

    def _sorted(self, part_rows: Ints, start: Ints) -> _Parts:
        flat, k = part_rows.reshape(-1), part_rows.shape[1]
        here = np.flatnonzero(flat >= 0)
        row, segment = flat[here], here if k == 1 else here // k
        batch, place = np.divmod(segment, start.shape[1])
        group, shard = batch * len(self._kinds) + self._kind[row], self._shard[row]
        # Sensors of one item have one rate and one first sample: the drawn start holds for all of them.
        first = self._first[row] + start.reshape(-1)[segment] * self._n_axes[row]
        order, in_order = _order(group, shard)
        row, place, first, group, shard = (x[order] for x in (row, place, first, group, shard))
        return _Parts(row=row, place=place, first=first, group=group, shard=shard, in_order=in_order)


def _order(group: Ints, shard: Ints) -> tuple[Ints, bool]:
    """An order by group; True if it is that of the batch within each, False if it is by shard.

    A tape's batch comes shard by shard: as it stands, a lone group needs no scatter. Shuffled windows do not.
    """
    by_group = np.argsort(group, kind="stable")
    gathers = int(_steps(group[by_group], shard[by_group]).sum())
    if SHORT_RUN * gathers > len(group):
        by_shard = np.lexsort((shard, group))
        if SHORT_RUN * int(_steps(group[by_shard], shard[by_shard]).sum()) < gathers:
            return by_shard, False
    return by_group, True


def _numbers(values: NDArray[Any]) -> tuple[Any, ...]:
    """As Python's numbers; most often all are alike."""
    return (values[0].item(),) * len(values) if (values == values[0]).all() else tuple(values.tolist())


def sent(plan: BatchPlan, device: torch.device) -> BatchPlan:
    """The plan with its tensors on the device, all in one copy."""
    if device.type == "cpu":
        return plan
    parts: list[Any] = [plan, *plan.groups]
    tensors = [{f.name: x for f in fields(part) if torch.is_tensor(x := getattr(part, f.name))} for part in parts]
    there = iter(send([x for of in tensors for x in of.values()], device))
    parts = [replace(part, **{name: next(there) for name in of}) for part, of in zip(parts, tensors, strict=True)]
    moved: BatchPlan = replace(parts[0], groups=tuple(parts[1:]))
    return moved


def _steps(*keys: Ints) -> NDArray[np.bool_]:
    """(n - 1,) True where any of the keys (n,) changes."""
    changes: NDArray[np.bool_] = np.logical_or.reduce([k[1:] != k[:-1] for k in keys])
    return changes


def _kinds(source: Source) -> tuple[Ints, tuple[Kind, ...]]:
    """The kind of each row, and the kinds."""
    rows, part = source.rows, np.zeros(len(source.rows.shard), np.int64)
    for k, of_part in enumerate(source.parts.T):
        part[of_part[of_part >= 0]] = k
    code = ((part * len(source.dtypes) + rows.dtype) * (rows.window.max() + 1) + rows.window) * (rows.n_axes.max() + 1)
    _, example, kind = np.unique(code + rows.n_axes, return_index=True, return_inverse=True)
    return kind, tuple(
        Kind(
            column=int(source.column[part[i]]),
            dtype=source.dtypes[rows.dtype[i]],
            n_samples=int(rows.window[i]),
            n_axes=int(rows.n_axes[i]),
            scale=_one_for_all(rows.scale[kind == k], int(rows.n_axes[i])),
            zero=_one_for_all(rows.zero[kind == k], int(rows.n_axes[i])),
        )
        for k, i in enumerate(example)
    )


def _one_for_all(values: NDArray[np.float32], n_axes: int) -> torch.Tensor | None:
    """(1, A) if all of (r, A) are alike."""
    return torch.from_numpy(values[:1, :n_axes]) if (values == values[0]).all() else None


def channels_of(source: Source, part_rows: Ints) -> Ints:
    """Channels (n, C) of the columns of items with these rows (n, k); -1 absent."""
    channel = np.full((len(part_rows), source.n_columns), -1, np.int64)
    width = source.rows.channel.shape[1]
    for k, column in enumerate(source.column):
        stop = min(column + width, source.column[k + 1] if k + 1 < len(source.column) else source.n_columns)
        of_part = source.rows.channel[part_rows[:, k], : stop - column]
        absent = part_rows[:, k] < 0
        if absent.any():
            of_part[absent] = -1
        channel[:, column:stop] = of_part
    return channel
