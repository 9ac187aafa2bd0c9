"""Shards as memory: flat tensors over memory-mapped files, opened when first read.

shard, dtype -> flat tensor of the whole file;  announce(shard, bytes) -> the kernel reads ahead
"""

import mmap
import os
from pathlib import Path

import numpy as np
import psutil
import torch

from aar_dist.base.errors import ShardError
from aar_dist.stream.source import Source
from aar_dist.stream.tape import Ints

# Unsigned integers are gathered as signed ones of their size, which torch knows on every device, and set right later.
TORCH = {"<f4": torch.float32, "<f8": torch.float64, "<f2": torch.float16, "|i1": torch.int8, "|u1": torch.uint8,
          "<i2": torch.int16, "<u2": torch.int16, "<i4": torch.int32, "<u4": torch.int32, "<i8": torch.int64,
          "<u8": torch.int64, "int16": torch.int16, "float16": torch.float16}  # fmt: skip


class ShardMaps:
    """Memory maps of the shards, opened when first read; sizes are checked, because a short file would be SIGBUS."""

    def __init__(self, source: Source) -> None:
        self._shards = source.shards
        self._flat: dict[tuple[int, str], torch.Tensor] = {}
        self._files: dict[int, int] = {}
        # Where all shards fit the page cache, each is read ahead whole and in order when first touched. Otherwise the
        # kernel is told of each segment ahead: faults alone are ten times slower on a cold cache.
        self._read_ahead = sum(size for _, size in source.shards) < psutil.virtual_memory().available // 2

    def announce(self, shard: Ints, first_byte: Ints, n_bytes: Ints) -> None:
        """Tell the kernel what will be read soon."""
        if self._read_ahead:
            return
        for s, start, length in zip(shard.tolist(), first_byte.tolist(), n_bytes.tolist(), strict=True):
            if s not in self._files:
                self._files[s] = os.open(self._shards[s][0], os.O_RDONLY)
            os.posix_fadvise(self._files[s], start, length, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Let go of the files; maps go with the last tensor."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def flat(self, shard: int, dtype: str) -> torch.Tensor:
        """The whole shard as a flat tensor of this dtype."""
        if (shard, dtype) not in self._flat:
            self._flat[shard, dtype] = _view(self._map(shard), dtype)
        return self._flat[shard, dtype]

    def _map(self, shard: int) -> np.memmap[tuple[int], np.dtype[np.uint8]]:
        path, size = self._shards[shard]
        check_size(path, size)
        # Private and writable, never written: torch takes no read-only memory.
        view: np.memmap[tuple[int], np.dtype[np.uint8]] = np.memmap(path, np.uint8, mode="c")
        if self._read_ahead:
            view._mmap.madvise(mmap.MADV_WILLNEED)  # type: ignore[attr-defined]
        else:
            view._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
        return view


def check_size(path: Path, size: int) -> None:
    """Refuse a shard that is not as long as its manifest says."""
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise ShardError(f"{path}: missing, though the manifest names it; copy the whole shard set again") from None
    if found != size:
        raise ShardError(
            f"{path}: has {found} bytes, the manifest says {size}: cut short or of another build; copy it again"
        )


def _view(raw: np.memmap[tuple[int], np.dtype[np.uint8]], dtype: str) -> torch.Tensor:
    size = np.dtype(dtype).itemsize
    return torch.from_numpy(raw[: raw.size // size * size]).view(TORCH[dtype])
