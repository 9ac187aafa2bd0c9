"""Cutting: segments out of memory-mapped shards, one gather a shard, into a batch on the device.

parts (row, start) -> groups of one dtype, length and shard -> gather (no GIL) -> RawBatch in the shard's own dtype
RawBatch -> device -> float32, scaled, NaN and padding masked -> SegmentBatch

Where the samples are resident on the device, the same gather happens there: a group takes its first elements along
instead of values.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from aar_dist.shards.checks import MISSING
from aar_dist.stream.batch import Origin, SegmentBatch
from aar_dist.stream.buffers import ALIGN, Buffer, BufferRing, HostMemory
from aar_dist.stream.config import Normalize
from aar_dist.stream.cuts import BatchPlan, GroupPlan, Kind, Planner, sent
from aar_dist.stream.maps import TORCH, ShardMaps, windows
from aar_dist.stream.resident import Resident
from aar_dist.stream.source import Source, first_rows
from aar_dist.stream.tape import SegmentRefs

_WRAPPED = ("<u2", "<u4", "<u8")


@dataclass(frozen=True)
class Group:
    """Parts of a batch of one kind: n parts, S samples, A axes."""

    plan: GroupPlan
    values: torch.Tensor | None
    """(n, S·A) as stored; None where they are still to be gathered from ``resident``."""
    resident: torch.Tensor | None
    """Flat samples on the device."""


@dataclass(frozen=True)
class RawBatch:
    """A micro-batch on the host, before conversion; its values lie in a borrowed buffer."""

    plan: BatchPlan
    groups: tuple[Group, ...]
    buffer: Buffer
    memory: HostMemory
    origin: tuple[Origin, ...] | None


class Cutter:
    """Cuts the segments of a source."""

    def __init__(
        self, source: Source, ring: BufferRing, *, resident: Resident | None = None, origins: bool = False
    ) -> None:
        self._source, self._ring, self.resident, self._origins = source, ring, resident, origins
        self.maps = ShardMaps(source)
        self._frame_bytes = source.frame_bytes
        itemsize = np.array([np.dtype(d).itemsize for d in source.dtypes])
        in_shard = source.rows.offset // itemsize[source.rows.dtype]
        self._planner = Planner(source, resident.first if resident else in_shard, flat=resident is not None)

    def plan(self, refs: Sequence[SegmentRefs]) -> list[BatchPlan]:
        """How to cut each of these micro-batches, which are equally long."""
        return self._planner.plan(refs)

    def announce(self, refs: SegmentRefs) -> None:
        """Tell the kernel of segments that will be cut soon."""
        if self.resident:
            return
        rows, part_rows = self._source.rows, self._source.parts[refs.item]
        place, part = np.nonzero(part_rows >= 0)
        at = part_rows[place, part]
        first = rows.offset[at] + refs.start[place] * self._frame_bytes[at]
        self.maps.announce(rows.shard[at], first, rows.window[at] * self._frame_bytes[at])

    def close(self) -> None:
        """Let go of the shards."""
        self.maps.close()

    def cut(self, plan: BatchPlan) -> RawBatch:
        """Segments as stored; runs in a prefetch thread."""
        buffer = self._ring.take(0 if self.resident else sum(_bytes_of(group) for group in plan.groups))
        shards = {shard for group in plan.groups for shard, _ in group.runs}
        with nullcontext() if self.resident else self.maps.using(shards):
            groups = tuple(self._gathered(buffer, group) for group in plan.groups)
        return RawBatch(
            plan=plan,
            groups=groups,
            buffer=buffer,
            memory=self._ring.memory,
            origin=origins_of(self._source, plan.refs) if self._origins else None,
        )

    def _gathered(self, buffer: Buffer, plan: GroupPlan) -> Group:
        """One gather for each run out of the map of its shard."""
        kind = plan.kind
        if self.resident:
            return Group(plan=plan, values=None, resident=self.resident.flat(kind.dtype))
        width = kind.n_samples * kind.n_axes
        out = buffer.tensor(len(plan.first), width, TORCH[kind.dtype])
        sizes = [size for _, size in plan.runs]
        for (shard, _), first, part in zip(
            plan.runs, plan.first.split_with_sizes(sizes), out.split_with_sizes(sizes), strict=True
        ):
            windows(self.maps.flat(shard, kind.dtype), first, width, out=part)
        return Group(plan=plan, values=out, resident=None)


def origins_of(source: Source, refs: SegmentRefs) -> tuple[Origin, ...]:
    """Where these segments were recorded."""
    part_rows = source.parts[refs.item]
    first = first_rows(part_rows)
    start_s = (source.rows.first_sample[first] + refs.start) / source.rows.rate_hz[first]
    sensors = ["+".join(source.origin["sensor"][row[row >= 0]]) for row in part_rows]
    columns = (source.origin[name][first] for name in ("dataset", "subject", "recording"))
    names = zip(*columns, sensors, start_s, strict=True)
    return tuple(Origin(str(d), str(u), str(r), sensor, float(t)) for d, u, r, sensor, t in names)


def _bytes_of(plan: GroupPlan) -> int:
    kind = plan.kind
    n_bytes = len(plan.first) * kind.n_samples * kind.n_axes * np.dtype(kind.dtype).itemsize
    return -(-n_bytes // ALIGN) * ALIGN


def assemble(raw: RawBatch, n_columns: int, device: torch.device, normalize: Normalize) -> SegmentBatch:
    """Move a raw batch to the device and convert it there; its buffer may be reused afterwards."""
    plan = sent(raw.plan, device)
    size = (len(plan.key), plan.n_samples, n_columns)
    pairs = zip(raw.groups, plan.groups, strict=True)
    parts = [_converted(group, there, device, normalize, raw.memory) for group, there in pairs]
    values, valid = _joined(parts, plan, size, device, raw.memory)
    raw.buffer.give_back(device)
    return SegmentBatch(
        values=values,
        valid=valid,
        rate_hz=plan.rate_hz,
        dataset=plan.dataset,
        channel=plan.channel,
        key=plan.key,
        label=plan.label,
        duration_s=plan.duration_s,
        n_samples=plan.lengths,
        channels=plan.channels,
        origin=raw.origin,
    )


def _joined(
    parts: list[tuple[torch.Tensor, torch.Tensor]],
    plan: BatchPlan,
    size: tuple[int, int, int],
    device: torch.device,
    memory: HostMemory,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and masks (n, S, A) of the groups at their places in the batch, 0 and not valid elsewhere."""
    if len(parts) == 1 and parts[0][0].shape == size and plan.groups[0].place is None:
        return parts[0]
    values = _empty(size, torch.float32, device, memory).zero_()
    valid = _empty(size, torch.bool, device, memory).zero_()
    for (x, ok), group in zip(parts, plan.groups, strict=True):
        row, column = slice(None) if group.place is None else group.place, group.kind.column
        at = (row, slice(x.shape[1]), slice(column, column + x.shape[2]))
        values[at], valid[at] = x, ok
    return values, valid


def _converted(
    group: Group, there: GroupPlan, device: torch.device, normalize: Normalize, memory: HostMemory
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (n, S, A) float32 in the unit of the kind, 0 where not valid, and their mask. ``there`` is the group's
    plan on the device; what to do is asked of the one on the host, so that nothing waits for a GPU."""
    kind, stored = group.plan.kind, _stored(group, there, device)
    x = stored
    if stored.dtype != torch.float32:
        x = _empty(stored.shape, torch.float32, device, memory).copy_(stored)
    if kind.dtype in _WRAPPED:  # an unsigned type, gathered as a signed one
        x = torch.where(x < 0, x + 2.0 ** (8 * np.dtype(kind.dtype).itemsize), x)
    ok = _present(x, stored, kind, memory)
    if not (group.plan.scale == 1.0).all():
        x.mul_(there.scale.repeat(1, kind.n_samples))
    if not (group.plan.zero == 0.0).all():
        x.add_(there.zero.repeat(1, kind.n_samples))
    if not _holds_everywhere(ok, kind):
        x = torch.where(ok, x, 0.0)
    shape = (len(x), kind.n_samples, kind.n_axes)
    return normalized(x.view(shape), ok.view(shape), normalize), ok.view(shape)


def _stored(group: Group, there: GroupPlan, device: torch.device) -> torch.Tensor:
    """The values of a group on the device, ours to change: sent there, or gathered there."""
    if group.values is not None:
        # Elsewhere than on CUDA nothing would tell when the buffer may be filled again.
        return group.values.to(device, non_blocking=device.type == "cuda")
    assert group.resident is not None
    return windows(group.resident, there.first, there.kind.n_samples * there.kind.n_axes)


def _present(x: torch.Tensor, stored: torch.Tensor, kind: Kind, memory: HostMemory) -> torch.Tensor:
    """(n, S·A) True where there is a value."""
    if stored.dtype.is_floating_point and x.device.type != "cpu":
        return torch.isfinite(x)
    ok = _empty(x.shape, torch.bool, x.device, memory)
    if kind.dtype == "int16":  # packed
        return torch.ne(stored, MISSING, out=ok)
    if not stored.dtype.is_floating_point:
        return ok.fill_(True)
    np.isfinite(x.numpy(), out=ok.numpy())  # one pass; torch makes several, with memory for each
    return ok


def _holds_everywhere(ok: torch.Tensor, kind: Kind) -> bool:
    """True if no value is known to be missing, without waiting for a device."""
    return (np.dtype(kind.dtype).kind in "iu" and kind.dtype != "int16") or (
        ok.device.type == "cpu" and bool(ok.numpy().all())
    )


def _empty(size: Sequence[int], dtype: torch.dtype, device: torch.device, memory: HostMemory) -> torch.Tensor:
    return memory.empty(size, dtype) if device.type == "cpu" else torch.empty(*size, dtype=dtype, device=device)


def normalized(x: torch.Tensor, valid: torch.Tensor, normalize: Normalize) -> torch.Tensor:
    """Segments (n, S, A) by what they hold themselves; statistics of more than a segment are in their scale already."""
    if normalize == "centre":
        return centred(x, valid)
    return zscore(x, valid) if normalize == "segment" else x


def centred(x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(n, S, A) less the mean over each segment and axis's valid samples; 0 where not valid.

    The sum is one in float64, exact in any order: what lies far from zero (PPG at -213 that swings by 0.1) is the same
    whoever adds it up, and an axis that stands still is 0.
    """
    total = torch.where(valid, x, 0.0).sum(1, keepdim=True, dtype=torch.float64)
    mean = (total / valid.sum(1, keepdim=True).clamp(min=1)).to(x.dtype)
    return torch.where(valid, x - mean, 0.0)


def zscore(x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """z-score of (n, S, A) per segment and axis over its valid samples; 0 where not valid or where all are equal."""
    x = centred(x, valid)
    deviation = (x.square().sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)).sqrt()
    return x / torch.where(deviation > 0, deviation, 1.0)
