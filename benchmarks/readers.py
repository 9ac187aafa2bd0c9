"""What is measured in the process of the benchmark: the plain ways to read segments, and ours, part by part.

Every reader is a function that reads one batch, so that rounds can go from one to the next.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from corpus import AXES, RATE_HZ, Corpus

from aar_dist.stream.buffers import BufferRing
from aar_dist.stream.config import DataConfig, MixtureConfig
from aar_dist.stream.loader import PLAN_BATCHES, SegmentStream, open_stream
from aar_dist.stream.segments import Cutter, RawBatch, assemble

Reader = Callable[[], object]
CPU = torch.device("cpu")
PLANNED = 64  # batches whose segments are known beforehand, where the tape is not measured


def plain_readers(corpus: Corpus, batch: int, window: int) -> dict[str, Reader]:
    """The loop and the gather over one memory map, and the memory copies that no reader can beat."""
    values = corpus.memmap()
    starts = itertools.cycle([corpus.starts(batch, window, seed) for seed in range(PLANNED)])
    out = np.empty((batch, window, AXES), corpus.dtype)
    walk = itertools.cycle(range(0, len(values) - batch * window + 1, batch * window))
    block = np.array(values[: batch * window])
    view = np.asarray(values)
    # Private and writable, never written: torch takes no read-only memory.
    flat, width = torch.from_numpy(np.memmap(corpus.flat, corpus.dtype, mode="c")), window * AXES
    rows, gathered = flat.as_strided((len(flat) - width + 1, width), (1, 1)), torch.from_numpy(out).view(batch, width)

    def loop(source: Any) -> None:
        for i, p in enumerate(next(starts).tolist()):
            out[i] = source[p : p + window]

    def copy(source: Any) -> None:
        out.reshape(-1, AXES)[:] = source

    return {
        "memcpy, in the cache": lambda: copy(block),
        "memcpy, end to end": lambda: copy(view[(p := next(walk)) : p + batch * window]),
        "gather, one memory map": lambda: torch.index_select(
            rows, 0, torch.from_numpy(next(starts) * AXES), out=gathered
        ),
        "loop, memory map": lambda: loop(values),
        "loop, plain array over it": lambda: loop(view),
    }


def stream_of(corpus: Corpus, window: int, **changes: Any) -> SegmentStream:
    """Our stream; uniform starts, weighted by length."""
    mixture = MixtureConfig(rule="proportional")
    seconds = window / RATE_HZ
    return open_stream(
        DataConfig(shards=[str(corpus.shards)], segment_duration=seconds, mixture=mixture, **changes), "train"
    )


def our_readers(corpus: Corpus, batch: int, window: int) -> dict[str, Reader]:
    """One thread: the cut alone, and with what comes before and after it."""
    stream = stream_of(corpus, window)
    cutter = Cutter(stream.source, BufferRing(pinned=False))

    def plans() -> Iterator[Any]:
        for position in itertools.count(0, PLAN_BATCHES * batch):
            refs = stream.tape.segments_at(stream.tape.batches(position, batch, PLAN_BATCHES))
            yield from cutter.plan(list(refs.rows()))

    planned, fresh = itertools.cycle(list(itertools.islice(plans(), PLANNED))), plans()
    as_float = torch.empty((batch, window * AXES))

    def raw(plan: Any) -> RawBatch:
        cut = cutter.cut(plan)
        cut.buffer.give_back(CPU)
        return cut

    def converted() -> None:
        group = raw(next(fresh)).groups[0]
        as_float.copy_(group.values).mul_(group.plan.scale.repeat(1, window))

    return {
        "ours, the cut alone": lambda: raw(next(planned)),
        "ours, tape and cut": lambda: raw(next(fresh)),
        "ours, tape, cut, float32": converted,
        "ours, SegmentBatch": lambda: assemble(cutter.cut(next(fresh)), AXES, CPU, "none"),
    }


def threaded_readers(corpus: Corpus, batch: int, window: int) -> dict[str, Reader]:
    """The whole stream as training sees it, with one and with two prefetch threads."""
    readers = {}
    for threads, name in ((1, "one"), (2, "two")):
        batches = stream_of(corpus, window, reader_threads=threads).batches(0, batch, batch)
        readers[f"ours, stream, {name} prefetch thread{'s' * (threads > 1)}"] = batches.__next__
    return readers
