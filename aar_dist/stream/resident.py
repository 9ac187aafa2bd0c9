"""Samples put on the device once, where those of the whole split fit.

    rows drawn from -> bytes needed against bytes allowed -> pieces through host memory -> one flat tensor on the device

Batches are then cut on the device (segments.py): what is sent there are the elements at which segments start. Order and
bits are those of the host path, because all that follows the gather is the same code.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext

import numpy as np
import psutil
import torch

from aar_dist.base.cli import human_bytes
from aar_dist.base.errors import ConfigError
from aar_dist.base.progress import progress
from aar_dist.stream.buffers import BufferRing
from aar_dist.stream.config import DataConfig
from aar_dist.stream.maps import TORCH, ShardMaps
from aar_dist.stream.source import Source
from aar_dist.stream.tape import Ints

log = logging.getLogger(__name__)

PIECE_BYTES = 64 << 20
ALIGN = 8
"""Bytes of the longest type."""
SHARE_OF_FREE = 3
"""A split takes at most a third of what is free, if nothing else is said: what training allocates later (activations,
gradients, buffers of communication) is not known when the samples are placed."""


class Resident:
    """The samples of some rows of a source on a device, in the order of shards, each row's aligned for any type."""

    def __init__(self, source: Source, rows: Ints, device: torch.device) -> None:
        """Raises ``torch.OutOfMemoryError`` before anything is read."""
        self._source, self._device = source, device
        self._rows = rows[np.lexsort((source.rows.offset[rows], source.rows.shard[rows]))]
        room = room_for(source, self._rows)
        self._begin = np.cumsum(room) - room
        self._memory = torch.empty(int(room.sum()), dtype=torch.uint8, device=device)
        itemsize = np.array([np.dtype(dtype).itemsize for dtype in source.dtypes])
        self.first = np.full(len(source.rows.shard), -1, np.int64)
        """(r,) element of a row's first sample in the flat tensor of its dtype; -1 for rows that are not here."""
        self.first[self._rows] = self._begin // itemsize[source.rows.dtype[self._rows]]

    def flat(self, dtype: str) -> torch.Tensor:
        """All that is here, as elements of this dtype."""
        return self._memory.view(TORCH[dtype])

    def load(self) -> Iterator[int]:
        """Read the samples and send them to the device, through two host buffers in turn: one is filled while the other
        is sent. Yields the bytes of each piece."""
        ring, size = BufferRing(pinned=self._memory.is_cuda), min(PIECE_BYTES, len(self._memory))
        for buffer in [ring.take(size) for _ in range(2)]:
            buffer.give_back(self._device)
        with closing(ShardMaps(self._source)) as maps:
            for start in range(0, len(self._memory), size):
                buffer = ring.take(size)
                piece = buffer.tensor(1, min(size, len(self._memory) - start), torch.uint8)[0]
                self._fill(piece, start, maps)
                self._memory[start : start + len(piece)].copy_(piece, non_blocking=True)
                buffer.give_back(self._device)
                yield len(piece)
        if self._memory.is_cuda:  # whoever cuts may do so on another CUDA stream
            torch.cuda.current_stream(self._device).synchronize()

    def _fill(self, piece: torch.Tensor, start: int, maps: ShardMaps) -> None:
        """The bytes from ``start`` on."""
        begin, end = self._begin, self._begin + sample_bytes(self._source, self._rows)
        touched = slice(np.searchsorted(end, start, "right"), np.searchsorted(begin, start + len(piece)))
        low, high = np.maximum(begin[touched], start), np.minimum(end[touched], start + len(piece))
        rows = self._rows[touched]
        shard, place = self._source.rows.shard[rows], self._source.rows.offset[rows] + low - begin[touched]
        for of in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(shard)) + 1):  # a shard at a time
            with maps.using(shard[of].tolist()):
                maps.announce(shard[of], place[of], (high - low)[of])
                for s, p, a, b in zip(
                    *(x[of].tolist() for x in (shard, place, low - start, high - start)), strict=True
                ):
                    piece[a:b] = maps.flat(s, "|u1")[p : p + b - a]


def sample_bytes(source: Source, rows: Ints) -> Ints:
    """Bytes of the samples of each of these rows."""
    n_bytes: Ints = source.rows.n_samples[rows] * source.frame_bytes[rows]
    return n_bytes


def room_for(source: Source, rows: Ints) -> Ints:
    """Bytes that each of these rows takes on the device."""
    return -(-sample_bytes(source, rows) // ALIGN) * ALIGN


def resident_on(
    device: torch.device, source: Source, items: Ints, data: DataConfig, *, show: bool = False
) -> Resident | None:
    """The samples of these items on the device, or None where they are to be cut on the host.

    Raises:
        ConfigError: they must be there (``data.resident: always``) and do not fit.
    """
    if data.resident == "never" or (data.resident == "auto" and device.type == "cpu"):
        return None  # on the CPU a copy of the page cache would only double the memory
    rows = np.unique(source.parts[items])
    rows = rows[rows >= 0]
    needed = int(room_for(source, rows).sum())
    allowed = data.resident_bytes if data.resident_bytes is not None else _share(device)
    made, began = _allocated(source, rows, device) if needed <= allowed else None, time.perf_counter()
    if made is None:
        _refuse(device, needed, allowed, data)
        return None
    with progress(f"samples to {device}", needed) if show else nullcontext(_unseen) as advance:
        for n_bytes in made.load():
            advance(n_bytes)
    took = time.perf_counter() - began
    log.info("%s of samples are resident on %s, placed there in %.1f s", human_bytes(needed), device, took)
    return made


def _allocated(source: Source, rows: Ints, device: torch.device) -> Resident | None:
    try:
        return Resident(source, rows, device)
    except torch.OutOfMemoryError:  # free, and still not to be had: another process was faster
        return None


def _unseen(steps: float = 1.0) -> None:
    """Progress that nobody looks at."""


def _refuse(device: torch.device, needed: int, allowed: int, data: DataConfig) -> None:
    """Say that the samples do not fit, as an error where they must."""
    limit = "data.resident_limit" if data.resident_limit is not None else f"a third of what is free on {device}"
    said = (
        f"the samples of the split take {needed} bytes ({human_bytes(needed)}), {limit} is {allowed} "
        f"({human_bytes(allowed)})" + (", and the device has no room left" if needed <= allowed else "")
    )
    if data.resident == "always":
        raise ConfigError(f"data.resident: always, but {said}; set data.resident_limit higher, or data.resident auto")
    log.info("%s: they are cut on the host", said)


def _share(device: torch.device) -> int:
    """Bytes that one split of one rank may take where no limit is stated."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", "1")))
    if device.type == "cuda":
        free, sharing = torch.cuda.mem_get_info(device)[0], -(-ranks // torch.cuda.device_count())
    else:
        free, sharing = psutil.virtual_memory().available, ranks
    return int(free) // (SHARE_OF_FREE * sharing)
