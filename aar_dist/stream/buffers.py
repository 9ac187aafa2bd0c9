"""Host memory that prefetch threads fill and the device reads, used again and again.

    take(bytes) -> Buffer -> tensor(…) views -> give_back(device)

On a GPU the memory is pinned and a buffer is free again only when the copies out of it are done. What is small goes
together: ``send(tensors, device)``.
"""

import queue
from collections.abc import Sequence

import numpy as np
import torch

ALIGN = 64


class Buffer:
    """A stretch of host memory out of which tensors are carved."""

    def __init__(self, ring: "BufferRing", n_bytes: int) -> None:
        self._ring = ring
        self._memory = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=ring.pinned)
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
        self._ring.free.put(self)


class BufferRing:
    """The buffers of one stream; it grows to as many as are in use at once."""

    def __init__(self, *, pinned: bool) -> None:
        self.pinned = pinned
        self.free: queue.SimpleQueue[Buffer] = queue.SimpleQueue()

    def take(self, n_bytes: int) -> Buffer:
        """An empty buffer of at least this size."""
        try:
            buffer = self.free.get_nowait()
        except queue.Empty:
            return Buffer(self, n_bytes)
        return buffer.reset() if buffer.n_bytes >= n_bytes else Buffer(self, n_bytes)


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
