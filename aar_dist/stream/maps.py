"""Shards as memory: flat tensors over memory-mapped files, opened when first read.

shard, dtype -> flat tensor of the whole file;  announce(shard, bytes) -> the kernel reads ahead
"""

import mmap
import os
import resource
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import psutil
import torch

from aar_dist.stream.source import Source
from aar_dist.stream.staging import Staging
from aar_dist.stream.tape import Ints

# Unsigned integers are gathered as signed ones of their size, which torch knows on every device, and set right later.
TORCH = {"<f4": torch.float32, "<f8": torch.float64, "<f2": torch.float16, "|i1": torch.int8, "|u1": torch.uint8,
          "<i2": torch.int16, "<u2": torch.int16, "<i4": torch.int32, "<u4": torch.int32, "<i8": torch.int64,
          "<u8": torch.int64, "int16": torch.int16, "float16": torch.float16}  # fmt: skip
KEEP_S = 2.0
"""A remote shard that no batch was cut from for so long is let go of."""
MOST_MAPS = 10_000
"""Shards mapped at one time, where none is in use longer: the kernel's limit is 65,530 maps of a process."""


@dataclass
class _Map:
    """One shard, mapped. A map keeps a descriptor of its file, and with it the lock in the cache."""

    raw: np.memmap[tuple[int], np.dtype[np.uint8]]
    file: BinaryIO | None
    """Where segments are announced to the kernel."""
    flat: dict[str, torch.Tensor] = field(default_factory=dict)
    users: int = 0
    used_at: float = 0.0


class ShardMaps:
    """Memory maps of the shards, opened when first read; sizes are checked, because a short file would be SIGBUS.

    Remote shards stay mapped while a batch is cut from them (``using``) and a little longer; local ones for good, or as
    remote ones where there are more than may be open.
    """

    def __init__(self, source: Source) -> None:
        self.staging = Staging(source.shards, source.cache)
        self._most = most_maps()
        self._remote = any(shard.remote for shard in source.shards)
        self._passing = self._remote or len(source.shards) > self._most
        self._maps: dict[int, _Map] = {}
        self._lock = threading.Lock()
        # Where all shards fit the page cache, each is read ahead whole and in order when first touched. Otherwise the
        # kernel is told of each segment ahead: faults alone are ten times slower on a cold cache.
        self._read_ahead = sum(shard.size for shard in source.shards) < psutil.virtual_memory().available // 2

    def announce(self, shard: Ints, first_byte: Ints, n_bytes: Ints) -> None:
        """Tell the kernel what will be read soon."""
        if self._read_ahead:
            return
        if self._remote:  # what is not here yet is on its way, and will be in memory when it comes
            here = np.isin(shard, list(self._maps))
            shard, first_byte, n_bytes = shard[here], first_byte[here], n_bytes[here]
        with self.using(shard.tolist()):
            for s, start, length in zip(shard.tolist(), first_byte.tolist(), n_bytes.tolist(), strict=True):
                file = self._map(s).file
                assert file is not None, "kept open where there is no read-ahead"
                os.posix_fadvise(file.fileno(), start, length, os.POSIX_FADV_WILLNEED)

    def flat(self, shard: int, dtype: str) -> torch.Tensor:
        """The whole shard as a flat tensor of this dtype. Remote ones: inside ``using``."""
        of = self._map(shard)
        if dtype not in of.flat:
            of.flat[dtype] = _view(of.raw, dtype)
        return of.flat[dtype]

    @contextmanager
    def using(self, shards: Iterable[int]) -> Iterator[None]:
        """Keep these shards mapped meanwhile."""
        if not self._passing:
            yield
            return
        taken: list[_Map] = []
        try:
            for shard in sorted(set(shards)):
                taken.append(self._take(shard))
            yield
        finally:
            with self._lock:
                for one in taken:
                    one.users, one.used_at = one.users - 1, time.monotonic()

    def let_go(self, unused_s: float = 0.0) -> bool:
        """Close the maps that pass and that no batch was cut from for so long; False if there was none."""
        before = time.monotonic() - unused_s
        with self._lock:
            idle = [s for s, m in self._maps.items() if not m.users and m.used_at <= before] if self._passing else []
            for shard in idle:
                _close(self._maps.pop(shard))
        return bool(idle)

    def tidy(self) -> None:
        """Let go of what has not been used for a while; called now and then, also while nobody reads."""
        self.let_go(KEEP_S)

    def close(self) -> None:
        """Let go of the files; maps go with the last tensor."""
        with self._lock:
            while self._maps:
                _close(self._maps.popitem()[1])

    def _take(self, shard: int) -> _Map:
        while True:
            with self._lock:
                if shard in self._maps:
                    self._maps[shard].users += 1
                    return self._maps[shard]
            self._map(shard)

    def _map(self, shard: int) -> _Map:
        if shard in self._maps:
            return self._maps[shard]
        if len(self._maps) >= self._most:
            self.let_go()
        made = self._opened(shard)  # outside the lock: it may take a download
        with self._lock:
            first = self._maps.setdefault(shard, made)
        if first is not made:
            _close(made)
        return first

    def _opened(self, shard: int) -> _Map:
        with ExitStack() as stack:
            file = stack.enter_context(self.staging.open(shard, self.let_go))
            # Private and writable, never written: torch takes no read-only memory.
            raw: np.memmap[tuple[int], np.dtype[np.uint8]] = np.memmap(file, np.uint8, mode="c")
            advice = mmap.MADV_WILLNEED if self._read_ahead else mmap.MADV_RANDOM
            raw._mmap.madvise(advice)  # type: ignore[attr-defined]
            if not self._read_ahead:
                stack.pop_all()
        return _Map(raw, None if self._read_ahead else file, used_at=time.monotonic())


def most_maps() -> int:
    """Shards that may be mapped at one time. A map takes two descriptors, and a few streams are open at once; most
    shells allow 1024 until a program asks for more, as this does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return MOST_MAPS if hard == resource.RLIM_INFINITY else min(MOST_MAPS, hard // 8)


def _close(one: _Map) -> None:
    if one.file is not None:
        one.file.close()


def _view(raw: np.memmap[tuple[int], np.dtype[np.uint8]], dtype: str) -> torch.Tensor:
    size = np.dtype(dtype).itemsize
    return torch.from_numpy(raw[: raw.size // size * size]).view(TORCH[dtype])


def windows(flat: torch.Tensor, first: torch.Tensor, width: int, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """``width`` elements of a flat tensor from each of ``first`` (n,) int64 on: (n, width), where the tensor lies."""
    if flat.device.type != "cpu":
        return by_element(flat, first, width)
    rows = flat.as_strided((flat.numel() - width + 1, width), (1, 1))  # a memory copy each, without the GIL
    return torch.index_select(rows, 0, first, out=out)


def by_element(flat: torch.Tensor, first: torch.Tensor, width: int) -> torch.Tensor:
    """:func:`windows` by an index for each element. On a GPU that costs microseconds, and nothing hangs on how torch
    indexes a view of overlapping rows there, which went from one kernel to another between releases."""
    return flat[first[:, None] + torch.arange(width, device=flat.device)]
