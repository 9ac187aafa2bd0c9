"""Host memory that prefetch threads fill and the device reads, used again and again.

    take(bytes) -> Buffer -> tensor(…) views -> give_back(device)

On a GPU the memory is pinned and a buffer is free again only when the copies out of it are done.
"""

import queue

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
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
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
