"""One cache a node, one link a node: what is fetched when, what gives way, who waits.

    uses of the nodes, bytes of the shards, capacity, bandwidth, time of a step -> Fetches

Shards come whole, in the order of need, as far ahead as the cache has room (at most the steps that the stream looks
ahead, where a step is one micro-batch); what is in use stays, and of the rest the least recently used gives way. All
nodes step together, so that each waits for the slowest.
"""

import heapq
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aar_dist.stream.plan.demand import Uses, spells
from aar_dist.stream.staging import HORIZON
from aar_dist.stream.tape import Ints


@dataclass(frozen=True, kw_only=True)
class Fetches:
    """f fetches, in the order of need."""

    node: Ints
    shard: Ints
    step: Ints
    """(f,) at which it is first needed."""
    again: NDArray[np.bool_]
    """(f,) the node had it before."""
    level: Ints
    """(f,) what the node's cache holds then [bytes]."""
    evicted: int
    stall_s: float | None
    """Time that all wait, the first step's included; None where bandwidth or time of a step is not told."""
    first_s: float | None
    """Of it, before the first step."""
    short: bool = False
    """What is in use at one time is more than the cache holds: it stops there."""


@dataclass
class _Node:
    """The cache and the link of one node."""

    capacity: float
    sizes: list[int]
    used: int = 0
    evicted: int = 0
    link_free_s: float = 0.0
    until: dict[int, int] = field(default_factory=dict)
    busy: list[tuple[int, int]] = field(default_factory=list)
    idle: OrderedDict[int, int] = field(default_factory=OrderedDict)

    def take(self, shard: int, first: int, last: int) -> int | None:
        """Hold a shard over these steps. None if it was there, else the last step at which its room was in use (-1 if
        never). Raises ``OverflowError`` where there is no room."""
        while self.busy and self.busy[0][0] < first:
            end, other = heapq.heappop(self.busy)
            if self.until[other] == end:
                self.idle[other] = end
        freed = None if shard in self.until else self._make_room(self.sizes[shard])
        self.idle.pop(shard, None)
        self.until[shard] = max(last, self.until.get(shard, last))
        heapq.heappush(self.busy, (self.until[shard], shard))
        return freed

    def _make_room(self, size: int) -> int:
        freed = -1
        while self.used + size > self.capacity:
            if not self.idle:
                raise OverflowError
            other, end = self.idle.popitem(last=False)
            del self.until[other]
            self.used -= self.sizes[other]
            self.evicted += 1
            freed = max(freed, end)
        self.used += size
        return freed


@dataclass
class _Clock:
    """When steps begin, given how long they waited."""

    step_s: float
    steps: list[int] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def begins(self, step: int) -> float:
        """Time at which a step begins [s]; what it may itself still wait for is not in it."""
        at = bisect_right(self.steps, step)
        return step * self.step_s + (self.waited[at - 1] if at else 0.0)

    def wait(self, step: int, ready_s: float) -> None:
        """A step waits until then."""
        late = ready_s - self.begins(step)
        if late > 0:
            before = self.waited[-1] if self.waited else 0.0
            self.steps.append(step)
            self.waited.append(before + late)

    @property
    def stall_s(self) -> float:
        """Time waited in all."""
        return self.waited[-1] if self.waited else 0.0


def fetches(
    uses: Uses, sizes: Ints, *, capacity: int | None, bytes_per_s: float | None = None, step_s: float | None = None
) -> Fetches:
    """Play the uses of the nodes through their caches."""
    spell = spells(uses)
    order = np.lexsort((spell.unit, spell.first))
    limit, size = float("inf") if capacity is None else capacity, sizes.tolist()
    nodes = {n: _Node(limit, size) for n in np.unique(spell.unit).tolist()}
    clock = _Clock(step_s) if step_s and bytes_per_s else None
    rows: list[tuple[int, int, int, int]] = []
    short = False
    columns = (getattr(spell, name)[order].tolist() for name in ("unit", "shard", "first", "last"))
    for number, shard, first, last in zip(*columns, strict=True):
        node = nodes[number]
        try:
            freed = node.take(shard, first, last)
        except OverflowError:
            short = True
            break
        if freed is None:
            continue
        rows.append((number, shard, first, node.used))
        if clock and bytes_per_s:
            room_s = clock.begins(freed) + clock.step_s if freed >= 0 else 0.0
            begin = max(node.link_free_s, room_s, clock.begins(first - HORIZON) if first > HORIZON else 0.0)
            node.link_free_s = begin + size[shard] / bytes_per_s
            clock.wait(first, node.link_free_s)
    return _fetches(rows, sum(n.evicted for n in nodes.values()), clock, short)


def _fetches(rows: list[tuple[int, int, int, int]], evicted: int, clock: _Clock | None, short: bool) -> Fetches:
    table = np.array(rows, np.int64).reshape(-1, 4)
    node, shard, step, level = table.T
    again = np.ones(len(table), bool)
    again[np.unique(node * (int(shard.max(initial=0)) + 1) + shard, return_index=True)[1]] = False
    told = clock if clock and not short else None
    return Fetches(
        node=node,
        shard=shard,
        step=step,
        again=again,
        level=level,
        evicted=evicted,
        stall_s=told.stall_s if told else None,
        first_s=(told.waited[0] if told.steps and told.steps[0] == 0 else 0.0) if told else None,
        short=short,
    )


def least_without_refetch(uses: Uses, sizes: Ints, low: int, high: int, rounds: int = 8) -> int:
    """The smallest cache, to a few per cent, with which nothing is fetched twice; ``high`` is known to do, ``low`` is
    the least that runs at all."""
    for _ in range(rounds):
        middle = (low + high) // 2
        tried = fetches(uses, sizes, capacity=middle)
        if tried.short or tried.again.any():
            low = middle
        else:
            high = middle
    return high
