"""The stream of segment batches of one rank.

    tape -> positions of the global batches -> this rank's part -> cut in prefetch threads -> batch on the device

Any rank of any world, with any number of threads, sees its part of the same global batches.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import islice
from types import TracebackType
from typing import Literal
from weakref import WeakSet

import numpy as np
import torch

from aar_dist.base.errors import ConfigError
from aar_dist.base.hashing import hash_int, word
from aar_dist.shards.checks import check_file
from aar_dist.stream.batch import Origin, SegmentBatch
from aar_dist.stream.buffers import BufferRing, send
from aar_dist.stream.config import DataConfig
from aar_dist.stream.cuts import BatchPlan
from aar_dist.stream.mixture import segments_per_epoch
from aar_dist.stream.resident import Resident, resident_on
from aar_dist.stream.segments import Cutter, RawBatch, assemble, origins_of
from aar_dist.stream.source import Source, has_split, open_source
from aar_dist.stream.staging import Scout, check_limit
from aar_dist.stream.tape import Ints, Order, SegmentRefs, Tape

PLAN_BATCHES = 64  # global batches planned at once: a fifth of the cost of planning them singly
Plan = Callable[[], Iterator[SegmentRefs]]  # the same segments at every call


class SegmentStream:
    """Batches of one split for one rank."""

    def __init__(
        self, source: Source, tape: Order, data: DataConfig, *, rank: int, world_size: int, origins: bool = False
    ) -> None:
        self.source, self.tape, self.data, self.origins = source, tape, data, origins
        self.rank, self.world_size = rank, world_size
        self._residents: dict[torch.device, Resident | None] = {}
        self._pool = ThreadPoolExecutor(data.reader_threads, thread_name_prefix="reader")
        self._announcer = ThreadPoolExecutor(1, thread_name_prefix="announcer")
        self._scouts: WeakSet[Scout] = WeakSet()

    @property
    def n_segments(self) -> int:
        """Segments of one epoch."""
        return self.tape.n_segments

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return self.source.datasets

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return self.source.channels

    @property
    def longest_s(self) -> float:
        """Duration of the longest segment handed on [s]."""
        return float(self.source.rows.duration_s.max())

    @property
    def identity(self) -> str:
        """Identity of the shard sets."""
        return self.source.identity

    def batches(
        self, position: int, batch_size: int, micro_batch_size: int, device: torch.device | str = "cpu"
    ) -> Iterator[SegmentBatch]:
        """This rank's micro-batches of the global batches from ``position`` on, without end."""
        check_batch_size(batch_size, micro_batch_size, self.world_size)

        def plan() -> Iterator[SegmentRefs]:
            return self._training_refs(position, batch_size, micro_batch_size)

        return self._prefetched(plan, self._cutter(torch.device(device)), torch.device(device))

    def evaluation(
        self, batch_size: int, micro_batch_size: int, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[SegmentBatch, torch.Tensor]]:
        """The first epoch of the tape once. Every rank gets as many micro-batches; what fills up the last ones
        has weight 0 (micro-batch,) float32."""
        check_batch_size(batch_size, micro_batch_size, self.world_size)
        n = -(-self.n_segments // batch_size)
        positions = np.arange(n * batch_size, dtype=np.int64).reshape(n, batch_size)
        weight = (positions < self.n_segments).astype(np.float32)
        positions = np.minimum(positions, self.n_segments - 1)
        mine = self._mine(positions).reshape(-1, micro_batch_size)
        weights = self._mine(weight).reshape(-1, micro_batch_size)
        cutter = self._cutter(torch.device(device))
        batches = self._prefetched(self.tape.segments_at(mine).rows, cutter, torch.device(device))
        sent = (send((torch.from_numpy(w),), torch.device(device))[0] for w in weights)
        return zip(batches, sent, strict=True)

    def origins_at(self, position: int, batch_size: int) -> tuple[Origin, ...]:
        """Where this rank's segments of the global batch at ``position`` were recorded, in the order of its
        micro-batches."""
        mine = self._mine(self.tape.batches(position, batch_size, 1))
        return origins_of(self.source, self.tape.segments_at(mine.reshape(-1)))

    def place(self, device: torch.device) -> None:
        """Put the samples on the device, if they are to be resident and fit; the first batches do it otherwise.

        Raises:
            ConfigError: they must be resident (``data.resident: always``) and do not fit.
        """
        if device not in self._residents:
            items, show = self.tape.drawn(), self.rank == 0
            self._residents[device] = resident_on(device, self.source, items, self.data, show=show)

    def close(self) -> None:
        """Stop the threads that read ahead, also those of batches that are still iterated, and let go of the samples on
        the device. A thread that waits for a server that does not answer ends by itself."""
        self._residents.clear()
        for scout in self._scouts:
            scout.close()
        for pool in (self._announcer, self._pool):
            pool.shutdown(wait=self.source.cache is None, cancel_futures=True)

    def __enter__(self) -> "SegmentStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _mine(self, table: np.ndarray) -> np.ndarray:
        """This rank's equal part of each row."""
        share = table.shape[1] // self.world_size
        return table[:, self.rank * share : (self.rank + 1) * share]

    def _training_refs(self, position: int, batch_size: int, micro_batch_size: int) -> Iterator[SegmentRefs]:
        while True:
            mine = self._mine(self.tape.batches(position, batch_size, PLAN_BATCHES))
            planned = self.tape.segments_at(mine.reshape(-1, micro_batch_size))
            yield from planned.rows()
            position += batch_size * PLAN_BATCHES

    def _cutter(self, device: torch.device) -> Cutter:
        self.place(device)
        ring = BufferRing(pinned=device.type == "cuda")
        return Cutter(self.source, ring, resident=self._residents[device], origins=self.origins)

    def _prefetched(self, refs: Plan, cutter: Cutter, device: torch.device) -> Iterator[SegmentBatch]:
        """Cut ahead in the threads, hand on in order."""
        ahead: deque[Future[RawBatch | SegmentBatch]] = deque()
        with ExitStack() as stack:
            stack.enter_context(closing(cutter))
            stack.callback(lambda: [cut.cancel() for cut in ahead])  # of batches that nobody will see
            scout = self._scout(refs, cutter, stack)
            for plan in _planned(refs(), cutter):
                self._announcer.submit(cutter.announce, plan.refs)
                ahead.append(self._pool.submit(self._cut, cutter, plan, device))
                if len(ahead) > self.data.prefetch_batches:
                    yield self._assembled(ahead.popleft().result(), device)
                    if scout:
                        scout.passed()
            while ahead:
                yield self._assembled(ahead.popleft().result(), device)

    def _cut(self, cutter: Cutter, plan: BatchPlan, device: torch.device) -> RawBatch | SegmentBatch:
        """Runs in a prefetch thread. There a batch is finished as well where the CPU is the device."""
        raw = cutter.cut(plan)
        return self._assembled(raw, device) if device.type == "cpu" else raw

    def _assembled(self, batch: RawBatch | SegmentBatch, device: torch.device) -> SegmentBatch:
        if isinstance(batch, SegmentBatch):
            return batch
        return assemble(batch, self.source.n_columns, device, self.data.normalize)

    def _scout(self, plan: Plan, cutter: Cutter, stack: ExitStack) -> Scout | None:
        """Downloads ahead of the readers, where shards are cut that must be downloaded."""
        if self.source.cache is None or cutter.resident:
            return None

        def needed(refs: Iterable[SegmentRefs]) -> Iterator[Ints]:
            return (np.unique(self.source.items.shard[ref.item]) for ref in refs)

        check_limit(cutter.maps.staging, needed(islice(plan(), PLAN_BATCHES)), self.data.reader_threads)
        scout = Scout(cutter.maps.staging, needed(plan()), self.data.downloads, cutter.maps.tidy)
        self._scouts.add(scout)
        return stack.enter_context(closing(scout))


def _planned(refs: Iterator[SegmentRefs], cutter: Cutter) -> Iterator[BatchPlan]:
    while some := list(islice(refs, PLAN_BATCHES)):
        yield from cutter.plan(some)


def check_batch_size(batch_size: int, micro_batch_size: int, world_size: int) -> None:
    """The world size must divide the global batch, the micro-batch a rank's part of it."""
    if batch_size % world_size:
        raise ConfigError(
            f"train.batch_size {batch_size} is not divisible by the world size {world_size}; choose a multiple of it"
        )
    if (batch_size // world_size) % micro_batch_size:
        raise ConfigError(
            f"train.micro_batch_size {micro_batch_size} does not divide a rank's part of a batch, "
            f"{batch_size // world_size} segments"
        )


def open_stream(
    data: DataConfig, split: Literal["train", "val"], rank: int = 0, world_size: int = 1, *, origins: bool = False
) -> SegmentStream:
    """Open the stream of one split. Validation has a seed of its own, and only its first epoch is used."""
    source = open_source(data, split)
    for shard in source.shards:
        if not shard.remote:
            check_file(shard.path, shard.size)
    tape = open_tape(source, data, split)
    return SegmentStream(source, tape, data, rank=rank, world_size=world_size, origins=origins)


def open_tape(source: Source, data: DataConfig, split: Literal["train", "val"]) -> Tape:
    """The order in which a split is read."""
    totals = segments_per_epoch(source.seconds, data.segment_duration, data.mixture)
    seed = data.random_seed if split == "train" else hash_int(data.random_seed, word("validation"))
    return Tape(source.items, totals, seed=seed, lanes=data.lanes, shuffle_block=data.shuffle_block)


__all__ = ["SegmentStream", "check_batch_size", "has_split", "open_stream", "open_tape"]
