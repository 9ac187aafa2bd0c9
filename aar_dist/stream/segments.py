"""Cutting: segments out of memory-mapped shards, one gather a shard, into a batch on the device.

parts (row, start) -> groups of one dtype, length and shard -> gather (no GIL) -> RawBatch in the shard's own dtype
RawBatch -> device -> float32, scaled, NaN and padding masked -> SegmentBatch
"""

from dataclasses import dataclass

import numpy as np
import torch

from aar_dist.shards.packing import MISSING
from aar_dist.stream.batch import Origin, SegmentBatch
from aar_dist.stream.buffers import ALIGN, Buffer, BufferRing
from aar_dist.stream.config import Normalize
from aar_dist.stream.maps import TORCH, ShardMaps
from aar_dist.stream.source import Source, first_rows
from aar_dist.stream.tape import Ints, SegmentRefs

_WRAPPED = ("<u2", "<u4", "<u8")


@dataclass(frozen=True)
class Group:
    """Parts of a batch of one dtype and shape: n parts, S samples, A axes."""

    values: torch.Tensor
    """(n, S, A) as stored."""
    wraps_at: float
    """2**bits of an unsigned type that is stored as a signed one; 0 for the others."""
    packed: bool
    """int16 in which MISSING is NaN."""
    row: torch.Tensor
    """(n,) place in the batch."""
    column: int
    scale: torch.Tensor
    """(n, 1, A) float32."""
    zero: torch.Tensor


@dataclass(frozen=True)
class RawBatch:
    """A micro-batch on the host, before conversion; its values lie in a borrowed buffer."""

    groups: tuple[Group, ...]
    buffer: Buffer
    n_samples: int
    channel: torch.Tensor
    rate_hz: torch.Tensor
    dataset: torch.Tensor
    key: torch.Tensor
    duration_s: tuple[float, ...]
    label: torch.Tensor | None
    origin: tuple[Origin, ...] | None


class Cutter:
    """Cuts the segments of a source."""

    def __init__(self, source: Source, ring: BufferRing, *, origins: bool = False) -> None:
        self._source, self._ring, self._origins = source, ring, origins
        self._maps = ShardMaps(source)
        itemsize = np.array([np.dtype(d).itemsize for d in source.dtypes])
        self._frame_bytes = itemsize[source.rows.dtype] * source.rows.n_axes

    def announce(self, refs: SegmentRefs) -> None:
        """Tell the kernel of segments that will be cut soon."""
        rows, part_rows = self._source.rows, self._source.parts[refs.item]
        place, part = np.nonzero(part_rows >= 0)
        at = part_rows[place, part]
        first = rows.offset[at] + refs.start[place] * self._frame_bytes[at]
        self._maps.announce(rows.shard[at], first, rows.window[at] * self._frame_bytes[at])

    def close(self) -> None:
        """Let go of the shards."""
        self._maps.close()

    def cut(self, refs: SegmentRefs) -> RawBatch:
        """Segments as stored; runs in a prefetch thread."""
        s, rows = self._source, self._source.rows
        part_rows = s.parts[refs.item]  # (B, k)
        place, part = np.nonzero(part_rows >= 0)
        # Sensors of one item have one rate and one first sample: the drawn start holds for all of them.
        flat_rows, flat_starts = part_rows[place, part], refs.start[place]
        n_bytes = rows.window[flat_rows] * self._frame_bytes[flat_rows]
        buffer = self._ring.take(int(n_bytes.sum()) + ALIGN * (1 + len(flat_rows)))
        order = np.lexsort(
            (rows.shard[flat_rows], rows.n_axes[flat_rows], rows.window[flat_rows], rows.dtype[flat_rows], part)
        )
        groups = []
        for at in _runs(order, part, rows.dtype[flat_rows], rows.window[flat_rows], rows.n_axes[flat_rows]):
            groups.append(self._gather(buffer, flat_rows[at], flat_starts[at], place[at], int(s.column[part[at[0]]])))
        first = first_rows(part_rows)
        return RawBatch(
            groups=tuple(groups),
            buffer=buffer,
            n_samples=int(rows.window[flat_rows].max()),
            channel=torch.from_numpy(channels_of(s, part_rows)),
            rate_hz=torch.from_numpy(rows.rate_hz[first].astype(np.float32)),
            dataset=torch.from_numpy(s.items.dataset[refs.item]),
            key=torch.from_numpy(refs.key.view(np.int64).copy()),
            duration_s=tuple(rows.duration_s[first].tolist()),
            label=None if refs.label is None else torch.from_numpy(refs.label),
            origin=self._origin(part_rows, refs.start) if self._origins else None,
        )

    def _gather(self, buffer: Buffer, rows: Ints, starts: Ints, place: Ints, column: int) -> Group:
        """One gather for each shard out of its map; ``rows`` are sorted by shard."""
        s = self._source
        dtype, n, axes = s.dtypes[s.rows.dtype[rows[0]]], int(s.rows.window[rows[0]]), int(s.rows.n_axes[rows[0]])
        out = buffer.tensor(len(rows), n * axes, TORCH[dtype])
        first = s.rows.offset[rows] // np.dtype(dtype).itemsize + starts * axes
        shard = s.rows.shard[rows]
        for at in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(shard)) + 1):
            flat = self._maps.flat(int(shard[at[0]]), dtype)
            windows = flat.as_strided((flat.numel() - n * axes + 1, n * axes), (1, 1))
            torch.index_select(windows, 0, torch.from_numpy(first[at]), out=out[at[0] : at[-1] + 1])
        return Group(
            values=out.view(len(rows), n, axes),
            wraps_at=2.0 ** (8 * np.dtype(dtype).itemsize) if dtype in _WRAPPED else 0.0,
            packed=dtype == "int16",
            row=torch.from_numpy(place),
            column=column,
            scale=torch.from_numpy(s.rows.scale[rows, None, :axes]),
            zero=torch.from_numpy(s.rows.zero[rows, None, :axes]),
        )

    def _origin(self, part_rows: Ints, starts: Ints) -> tuple[Origin, ...]:
        s, first = self._source, first_rows(part_rows)
        start_s = (s.rows.first_sample[first] + starts) / s.rows.rate_hz[first]
        sensors = ["+".join(s.origin["sensor"][row[row >= 0]]) for row in part_rows]
        names = zip(
            *(s.origin[name][first] for name in ("dataset", "subject", "recording")), sensors, start_s, strict=True
        )
        return tuple(Origin(str(d), str(u), str(r), sensor, float(t)) for d, u, r, sensor, t in names)


def channels_of(source: Source, part_rows: Ints) -> Ints:
    """Channels (n, C) of the columns of items with these rows (n, k); -1 absent."""
    channel = np.full((len(part_rows), source.n_columns), -1, np.int64)
    width = source.rows.channel.shape[1]
    for k, column in enumerate(source.column):
        stop = min(column + width, source.column[k + 1] if k + 1 < len(source.column) else source.n_columns)
        of_part = source.rows.channel[part_rows[:, k], : stop - column]
        channel[:, column:stop] = np.where(part_rows[:, k, None] < 0, -1, of_part)
    return channel


def _runs(order: Ints, *keys: Ints) -> list[Ints]:
    """The order, split where any of the keys changes."""
    table = np.stack([k[order] for k in keys], axis=1)
    return np.split(order, np.flatnonzero((np.diff(table, axis=0) != 0).any(axis=1)) + 1)


def assemble(raw: RawBatch, n_columns: int, device: torch.device, normalize: Normalize) -> SegmentBatch:
    """Move a raw batch to the device and convert it there; its buffer may be reused afterwards."""
    size = (len(raw.key), raw.n_samples, n_columns)
    values = torch.zeros(size, device=device)
    valid = torch.zeros(size, dtype=torch.bool, device=device)
    for group in raw.groups:
        stored = group.values.to(device, non_blocking=True)
        row, scale, zero = (x.to(device, non_blocking=True) for x in (group.row, group.scale, group.zero))
        x = stored.to(torch.float32)
        if group.wraps_at:
            x = torch.where(x < 0, x + group.wraps_at, x)
        ok = x != MISSING if group.packed else torch.isfinite(x)
        x = torch.where(ok, x * scale + zero, 0.0)
        x = normalized(x, ok, normalize)
        columns = slice(group.column, group.column + x.shape[2])
        values[row, : x.shape[1], columns] = x
        valid[row, : x.shape[1], columns] = ok
    raw.buffer.give_back(device)
    small = {
        name: getattr(raw, name).to(device, non_blocking=True) for name in ("rate_hz", "dataset", "channel", "key")
    }
    label = None if raw.label is None else raw.label.to(device, non_blocking=True)
    return SegmentBatch(values=values, valid=valid, label=label, duration_s=raw.duration_s, origin=raw.origin, **small)


def normalized(x: torch.Tensor, valid: torch.Tensor, normalize: Normalize) -> torch.Tensor:
    """Segments (n, S, A) by what they hold themselves; statistics of more than a segment are in their scale already."""
    if normalize == "centre":
        return centred(x, valid)
    return zscore(x, valid) if normalize == "segment" else x


def centred(x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(n, S, A) less the mean over each segment and axis's valid samples; 0 where not valid."""
    mean = torch.where(valid, x, 0.0).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)
    return torch.where(valid, x - mean, 0.0)


def zscore(x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """z-score of (n, S, A) per segment and axis over its valid samples; 0 where not valid or where all are equal."""
    x = centred(x, valid)
    deviation = (x.square().sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)).sqrt()
    return x / torch.where(deviation > 0, deviation, 1.0)
