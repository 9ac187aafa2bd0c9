"""Reading from a cold page cache: segments announced ahead to the kernel against a map that faults.

The shards are copied, so that no map of ours holds their pages, and dropped from the page cache before each round;
mincore tells whether the file system did it.
"""

import ctypes
import itertools
import mmap
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
from corpus import AXES, Corpus
from readers import stream_of

MICRO = 64


def dropped(shards: Path) -> float:
    """Drop a folder's files from the page cache; the share of their pages that stayed."""
    kept = pages = 0
    for path in shards.glob("*.tar"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        resident = _resident(path)
        kept, pages = kept + int(resident.sum()), pages + len(resident)
    return kept / pages


def _resident(path: Path) -> np.ndarray:
    raw = np.memmap(path, np.uint8, mode="r")
    state = np.zeros(-(-raw.size // mmap.PAGESIZE), np.uint8)
    address = ctypes.c_void_p(raw.ctypes.data)
    failed = ctypes.CDLL(None, use_errno=True).mincore(
        address, ctypes.c_size_t(raw.size), state.ctypes.data_as(ctypes.c_void_p)
    )
    if failed:
        raise OSError(ctypes.get_errno(), "mincore", str(path))
    return state & 1


class Cold:
    """The readers of a cold copy, each for the same number of segments."""

    def __init__(self, corpus: Corpus, window: int, n_segments: int) -> None:
        self.window, self.n = window, n_segments // MICRO * MICRO
        where = corpus.shards.with_name(f"{corpus.name}-cold")
        shutil.copytree(corpus.shards, where)
        self.corpus = Corpus(corpus.name, where, corpus.flat, corpus.n_recordings, corpus.frames)
        self.readers: dict[str, Callable[[], Callable[[], None]]] = {
            "cold: map that faults": self.faults,
            "cold: announced a segment": self.announced,
            "cold: announced whole": self.whole,
        }

    def seconds(self, reader: str) -> tuple[float, float]:
        """Time of one pass over the segments [s], and the share of pages that could not be dropped before."""
        read = self.readers[reader]()
        kept = dropped(self.corpus.shards)
        began = time.perf_counter()
        read()
        return time.perf_counter() - began, kept

    def faults(self) -> Callable[[], None]:
        """The segments of the tape out of plain memory maps, one by one."""
        with stream_of(self.corpus, self.window) as stream:
            refs = stream.tape.segments_at(stream.tape.batches(0, MICRO, self.n // MICRO))
            rows, row = stream.source.rows, stream.source.parts[refs.item.reshape(-1), 0]
        paths = sorted(self.corpus.shards.glob("*.tar"))
        frame = AXES * np.dtype(self.corpus.dtype).itemsize
        out = np.empty(self.window * frame, np.uint8)
        first = (rows.offset[row] + refs.start.reshape(-1) * frame).tolist()

        def read() -> None:
            maps = [np.memmap(path, np.uint8, mode="r") for path in paths]
            for shard, p in zip(rows.shard[row].tolist(), first, strict=True):
                out[:] = maps[shard][p : p + self.window * frame]

        return read

    def announced(self) -> Callable[[], None]:
        """Our stream where the shards do not fit the memory: each segment is announced some batches ahead."""
        return self._stream(psutil.virtual_memory()._replace(available=0))

    def whole(self) -> Callable[[], None]:
        """Our stream as it is: shards that fit the memory are read ahead whole when first touched."""
        return self._stream(psutil.virtual_memory())

    def _stream(self, memory: Any) -> Callable[[], None]:
        stream = stream_of(self.corpus, self.window)

        def read() -> None:
            with patch("psutil.virtual_memory", lambda: memory), stream:
                for _ in itertools.islice(stream.batches(0, MICRO, MICRO), self.n // MICRO):
                    pass

        return read
