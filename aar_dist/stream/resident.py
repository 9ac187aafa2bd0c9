"""Samples put on the device once, where those of the whole split fit.

    rows drawn from -> bytes needed against bytes allowed -> pieces through host memory -> one flat tensor on the device

Batches are then cut on the device (segments.py): what is sent there are the elements at which segments start. Order and
bits are those of the host path, because all that follows the gather is the same code.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext

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
from aar_dist.stream.staging import Scout, ranks_here
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
        self._end = self._begin + sample_bytes(source, self._rows)
        self._memory = torch.empty(int(room.sum()), dtype=torch.uint8, device=device)
        itemsize = np.array([np.dtype(dtype).itemsize for dtype in source.dtypes])
        self.first = np.full(len(source.rows.shard), -1, np.int64)
        """(r,) element of a row's first sample in the flat tensor of its dtype; -1 for rows that are not here."""
        self.first[self._rows] = self._begin // itemsize[source.rows.dtype[self._rows]]

    def flat(self, dtype: str) -> torch.Tensor:
        """All that is here, as elements of this dtype."""
        return self._memory.view(TORCH[dtype])

    def load(self, downloads: int) -> Iterator[int]:
        """Read the samples and send them to the device, through two host buffers in turn: one is filled while the other
        is sent. Remote shards are downloaded ahead, so many at a time. Yields the bytes of each piece."""
        ring, size = BufferRing(pinned=self._memory.is_cuda), min(PIECE_BYTES, len(self._memory))
        for buffer in [ring.take(size) for _ in range(2)]:
            buffer.give_back(self._device)
        pieces = [slice(start, min(start + size, len(self._memory))) for start in range(0, len(self._memory), size)]
        with closing(ShardMaps(self._source)) as maps, self._scout(pieces, maps, downloads) as scout:
            for piece in pieces:
                buffer = ring.take(size)
                here = buffer.tensor(1, piece.stop - piece.start, torch.uint8)[0]
                self._fill(here, piece, maps)
                self._memory[piece].copy_(here, non_blocking=self._memory.is_cuda)
                buffer.give_back(self._device)
                if scout:
                    scout.passed()
                yield len(here)
        if self._memory.is_cuda:  # whoever cuts may do so on another CUDA stream
            torch.cuda.current_stream(self._device).synchronize()

    def _scout(
        self, pieces: list[slice], maps: ShardMaps, downloads: int
    ) -> AbstractContextManager[Scout] | nullcontext[None]:
        """Downloads ahead, where anything is remote."""
        if self._source.cache is None:
            return nullcontext()
        needed = (np.unique(self._source.rows.shard[self._rows[self._touched(piece)]]) for piece in pieces)
        return closing(Scout(maps.staging, needed, downloads, maps.tidy))

    def _touched(self, piece: slice) -> slice:
        """The rows that lie in a piece, in part or whole."""
        return slice(np.searchsorted(self._end, piece.start, "right"), np.searchsorted(self._begin, piece.stop))

    def _fill(self, here: torch.Tensor, piece: slice, maps: ShardMaps) -> None:
        """Read a piece."""
        touched = self._touched(piece)
        rows, begin = self._rows[touched], self._begin[touched]
        low = np.maximum(begin, piece.start)
        n_bytes = np.minimum(self._end[touched], piece.stop) - low
        shard, place = self._source.rows.shard[rows], self._source.rows.offset[rows] + low - begin
        maps.announce(shard, place, n_bytes)
        for s, p, a, n in zip(*(x.tolist() for x in (shard, place, low - piece.start, n_bytes)), strict=True):
            with maps.using((s,)):
                here[a : a + n] = maps.flat(s, "|u1")[p : p + n]


def sample_bytes(source: Source, rows: Ints) -> Ints:
    """Bytes of the samples of each of these rows."""
    of, itemsize = source.rows, np.array([np.dtype(dtype).itemsize for dtype in source.dtypes])
    n_bytes: Ints = of.n_samples[rows] * of.n_axes[rows] * itemsize[of.dtype[rows]]
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
        for n_bytes in made.load(data.downloads):
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
    if device.type == "cuda":
        free, sharing = torch.cuda.mem_get_info(device)[0], -(-ranks_here() // torch.cuda.device_count())
    else:
        free, sharing = psutil.virtual_memory().available, ranks_here()
    return int(free) // (SHARE_OF_FREE * sharing)
