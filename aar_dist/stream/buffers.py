"""Host memory that prefetch threads fill and the device reads, used again and again.

    HostMemory: empty(size, dtype) -> tensor, whose memory is free again once the last tensor over it is gone
    BufferRing: take(bytes) -> Buffer -> tensor(…) views -> give_back(device)

Fresh memory would cost more than the copy into it: the kernel clears it page by page. On a GPU the memory is pinned and
a buffer is free again only when the copies out of it are done. What is small goes together: ``send(tensors, device)``.
"""

import math
import queue
import weakref
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

ALIGN = 64


class HostMemory:
    """Blocks of ordinary memory. Whoever keeps a tensor keeps its block; a view of it, made anywhere, counts too."""

    def __init__(self) -> None:
        self._free: defaultdict[int, queue.SimpleQueue[NDArray[np.uint8]]] = defaultdict(queue.SimpleQueue)

    def empty(self, size: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A tensor with any content."""
        n_bytes = math.prod(size) * dtype.itemsize
        power = (max(n_bytes, 1) - 1).bit_length()  # blocks of 2**power bytes: one fits batches of several lengths
        free = self._free[power]
        try:
            block = free.get_nowait()
        except queue.Empty:
            block = _aligned(1 << power)
        lent = block[:n_bytes]  # an object of its own, which torch lets go of with the last tensor over it
        weakref.finalize(lent, free.put, block).atexit = False
        return torch.from_numpy(lent).view(dtype).view(*size)


def _aligned(n_bytes: int) -> NDArray[np.uint8]:
    block = np.empty(n_bytes + ALIGN, np.uint8)
    skip = -block.ctypes.data % ALIGN
    return block[skip : skip + n_bytes]


class Buffer:
    """A stretch of host memory out of which tensors are carved."""

    def __init__(self, ring: "BufferRing", memory: torch.Tensor) -> None:
        self._ring, self._memory = ring, memory
        self._used = 0
        self._copied: torch.cuda.Event | None = None

    @property
    def n_bytes(self) -> int:
        """Capacity."""
        return self._memory.numel()

    def reset(self) -> "Buffer":
        """Empty the buffer, once nothing reads from it any more."""
        if self._copied is not None:
            self._copied.synchronize()
        self._used, self._copied = 0, None
        return self

    def tensor(self, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """The next (rows, columns) of the buffer."""
        n = rows * columns * dtype.itemsize
        view = self._memory[self._used : self._used + n].view(dtype).view(rows, columns)
        self._used += -(-n // ALIGN) * ALIGN
        return view

    def give_back(self, device: torch.device) -> None:
        """Offer the buffer for use again after the copies issued so far."""
        if device.type == "cuda":
            # A reader that waits sleeps: one that spins would take the core of whoever launches kernels.
            self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._copied.record(torch.cuda.current_stream(device))
        if self._ring.pinned:  # other memory comes back by itself: a batch on the CPU may lie in it
            self._ring.free.put(self)


class BufferRing:
    """The buffers of one stream; it grows to as many as are in use at once."""

    def __init__(self, *, pinned: bool) -> None:
        self.pinned = pinned
        self.memory = HostMemory()
        self.free: queue.SimpleQueue[Buffer] = queue.SimpleQueue()

    def take(self, n_bytes: int) -> Buffer:
        """An empty buffer of at least this size."""
        if not self.pinned:
            return Buffer(self, self.memory.empty((n_bytes,), torch.uint8))
        try:
            buffer = self.free.get_nowait()
        except queue.Empty:
            return self._pinned(n_bytes)
        return buffer.reset() if buffer.n_bytes >= n_bytes else self._pinned(n_bytes)

    def _pinned(self, n_bytes: int) -> Buffer:
        # As large as torch makes it anyway, so that it fits the longer batches too.
        return Buffer(self, torch.empty(1 << max(n_bytes - 1, 0).bit_length(), dtype=torch.uint8, pin_memory=True))


def send(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Small host tensors on the device, in one copy for all.

    Out of pageable memory each would be a copy of its own that may wait for all that a GPU still has to do. The pinned
    memory is torch's: it is not used again before the copy is done.
    """
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    here = torch.empty(sum(_room(tensor) for tensor in tensors), dtype=torch.uint8, pin_memory=True)
    for place, tensor in zip(carved(here, tensors), tensors, strict=True):
        place.copy_(tensor)
    return carved(here.to(device, non_blocking=True), tensors)


def carved(memory: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors as these in a stretch of bytes, one after the other."""
    ends = np.cumsum([_room(tensor) for tensor in like]).tolist()
    starts = [0, *ends[:-1]]
    return [memory[a : a + x.nbytes].view(x.dtype).view(x.shape) for a, x in zip(starts, like, strict=True)]


def _room(tensor: torch.Tensor) -> int:
    return -(-tensor.nbytes // ALIGN) * ALIGN
