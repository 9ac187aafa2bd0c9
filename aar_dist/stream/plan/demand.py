"""Which unit (a rank or a node) reads which shard from which step to which.

    tape, batch size, units -> Uses, counted segment by segment, or derived from the lanes where there are too many

A lane goes through its part of the epoch's line in blocks of ``shuffle_block`` segments, each in a random order, so
what it reads in a block is known without drawing anything: the shards of that stretch of the line. Which units serve
a lane follows from the order within a batch. Derived uses begin and end with a block (of a lane that two units share,
either may by chance see a shard later, or never: they are never too short); batches that lie across the end
of an epoch are counted in either case, for there every unit serves other lanes.
"""

import math
from dataclasses import dataclass, fields, replace

import numpy as np

from aar_dist.base.errors import ConfigError
from aar_dist.stream.columns import grouped
from aar_dist.stream.tape import Ints, Tape

COUNTED = 10_000_000
"""Segments up to which a plan counts each."""
PIECE = 1 << 20  # segments counted at once
PHASES = 4096  # places of a batch in the cycle of lanes that are looked at
MOST_USES = 4_000_000
"""Of an epoch; beyond, only some nodes are looked at."""


@dataclass(frozen=True, kw_only=True)
class Uses:
    """u uses: a unit reads a shard through one lane, from its first step to its last."""

    unit: Ints
    shard: Ints
    lane: Ints
    """Of all epochs: epoch · lanes + lane."""
    first: Ints
    """(u,) step, from 0."""
    last: Ints

    def __len__(self) -> int:
        return len(self.unit)

    def of(self, units: Ints) -> "Uses":
        """The uses of some units."""
        at = np.isin(self.unit, units)
        return Uses(**{f.name: getattr(self, f.name)[at] for f in fields(self)})


def demand(tape: Tape, batch_size: int, n_steps: int, world_size: int, ranks_per_node: int) -> tuple[Uses, list[str]]:
    """Uses of the ranks, and what of it was not counted one by one."""
    if n_steps * batch_size <= COUNTED:
        return counted(tape, batch_size, n_steps, world_size), []
    if batch_size > tape.n_segments:
        raise ConfigError(f"--batch_size {batch_size} is more than the {tape.n_segments} segments of an epoch")
    said = [
        f"reading begins and ends with a block of {tape.shuffle_block} segments a lane "
        f"({-(-tape.shuffle_block * tape.lanes // batch_size)} steps): more than {COUNTED:.0e} segments are not counted"
    ]
    low, high = units_of_lanes(tape, batch_size, world_size, 0)
    rows = int((high - low + 1).sum()) * -(-len(tape.items.shard_word) // tape.lanes + 1)
    nodes = np.arange(world_size // ranks_per_node)
    if (most := max(1, len(nodes) * MOST_USES // max(1, rows))) < len(nodes):
        nodes = np.unique(np.linspace(0, len(nodes) - 1, most).astype(np.int64))
        said.append(f"{len(nodes)} of {world_size // ranks_per_node} nodes were looked at")
    ranks = (nodes[:, None] * ranks_per_node + np.arange(ranks_per_node)).reshape(-1)
    return derived(tape, batch_size, n_steps, world_size, ranks), said


def counted(tape: Tape, batch_size: int, n_steps: int, units: int) -> Uses:
    """Segment by segment, with the code that trains."""
    at_once = max(1, PIECE // batch_size)
    pieces = [
        _count(tape, batch_size, range(step, min(step + at_once, n_steps)), units)
        for step in range(0, n_steps, at_once)
    ]
    return merged(pieces)


def _count(tape: Tape, batch_size: int, steps: range, units: int) -> Uses:
    positions = tape.batches(steps.start * batch_size, batch_size, len(steps))
    lane = positions // tape.n_segments * tape.lanes + tape.lane_of(positions)
    shard = tape.items.shard[tape.segments_at(positions).item]
    unit = np.broadcast_to(np.arange(batch_size) // (batch_size // units), positions.shape)
    step = np.broadcast_to(np.array(steps)[:, None], positions.shape)
    unit, shard, lane, step = (x.reshape(-1) for x in (unit, shard, lane, step))
    return merged([Uses(unit=unit, shard=shard, lane=lane, first=step, last=step)])


def merged(pieces: list[Uses]) -> Uses:
    """One use for each (unit, shard, lane)."""
    whole = {f.name: np.concatenate([getattr(piece, f.name) for piece in pieces]) for f in fields(Uses)}
    code, at = grouped(whole["unit"], whole["shard"], whole["lane"])
    first, last = np.full(len(at), np.iinfo(np.int64).max), np.full(len(at), -1)
    np.minimum.at(first, code, whole["first"])
    np.maximum.at(last, code, whole["last"])
    return Uses(unit=whole["unit"][at], shard=whole["shard"][at], lane=whole["lane"][at], first=first, last=last)


def derived(tape: Tape, batch_size: int, n_steps: int, units: int, some: Ints) -> Uses:
    """From the lanes' stretches of the line, for some of the units (rising); an epoch must be longer than a batch."""
    pieces = []
    for epoch in range(-(-n_steps * batch_size // tape.n_segments)):
        low, high = units_of_lanes(tape, batch_size, units, epoch)
        low, high = np.searchsorted(some, low), np.searchsorted(some, high, side="right")
        shard, lane, begin, end = _stretches(tape, epoch)
        first, last = begin // batch_size, np.minimum(end // batch_size, n_steps - 1)
        width = np.where(first < n_steps, (high - low)[lane], 0)
        row = np.repeat(np.arange(len(lane)), width)
        unit = some[low[lane[row]] + np.arange(len(row)) - np.repeat(np.cumsum(width) - width, width)]
        number = epoch * tape.lanes + lane[row]
        pieces.append(Uses(unit=unit, shard=shard[row], lane=number, first=first[row], last=last[row]))
        step, rest = divmod((epoch + 1) * tape.n_segments, batch_size)
        if rest and step < n_steps:
            pieces.append(_count(tape, batch_size, range(step, step + 1), units).of(some))
    return merged(pieces)


def _stretches(tape: Tape, epoch: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Shard and lane of each stretch of an epoch's line, the first and the last position of the blocks it is in."""
    shards, shard_ends = tape.shard_ends(epoch)
    lane_ends = tape.lane_ends()
    ends = np.union1d(shard_ends, lane_ends)
    starts = np.append(0, ends[:-1])
    shard = shards[np.searchsorted(shard_ends, starts, side="right")]
    lane = np.searchsorted(lane_ends, starts, side="right")
    lane_start = np.append(0, lane_ends[:-1])[lane]
    block = tape.shuffle_block
    begin = (starts - lane_start) // block * block
    end = np.minimum(((ends - 1 - lane_start) // block + 1) * block, lane_ends[lane] - lane_start)
    base = epoch * tape.n_segments
    return shard, lane, base + begin * tape.lanes, base + np.minimum(end * tape.lanes, tape.n_segments) - 1


def units_of_lanes(tape: Tape, batch_size: int, units: int, epoch: int) -> tuple[Ints, Ints]:
    """The first and the last unit that serve each lane, over all places of a batch in the cycle of lanes."""
    share = batch_size // units
    whole, rest = divmod(batch_size, tape.lanes)
    phases = min(tape.lanes // math.gcd(batch_size, tape.lanes), PHASES)
    low, high = np.full(tape.lanes, units), np.full(tape.lanes, -1)
    for phase in range(phases):
        count = np.full(tape.lanes, whole)
        count[tape.lane_of((phase * batch_size - epoch * tape.n_segments + np.arange(rest)) % tape.lanes)] += 1
        end, there = np.cumsum(count), count > 0
        low[there] = np.minimum(low, (end - count) // share)[there]
        high[there] = np.maximum(high, (end - 1) // share)[there]
    return low, high


def per_node(uses: Uses, ranks_per_node: int) -> Uses:
    """Uses of the nodes."""
    return merged([replace(uses, unit=uses.unit // ranks_per_node)])


def spells(uses: Uses) -> Uses:
    """Each (unit, shard) from its coming into use until no lane uses it any more; ``lane`` is that of the first."""
    order = np.lexsort((uses.first, uses.shard, uses.unit))
    unit, shard, lane, first, last = (getattr(uses, f)[order] for f in ("unit", "shard", "lane", "first", "last"))
    new = np.append(True, (np.diff(unit) != 0) | (np.diff(shard) != 0))[: len(order)]
    far = int(last.max(initial=0)) + 2
    reach = np.maximum.accumulate(np.cumsum(new) * far + last) - np.cumsum(new) * far
    begins = np.flatnonzero(new | np.append(True, first[1:] > reach[:-1] + 1)[: len(order)])
    stop = np.maximum.reduceat(last, begins) if len(begins) else last
    return Uses(unit=unit[begins], shard=shard[begins], lane=lane[begins], first=first[begins], last=stop)


def most_at_once(uses: Uses, weight: Ints) -> Ints:
    """For each unit that occurs, the largest sum of ``weight`` (n_shards,) over the shards that it uses at one time."""
    spell = spells(uses)
    unit = np.concatenate([spell.unit, spell.unit])
    step = np.concatenate([spell.first, spell.last + 1])
    change = np.concatenate([weight[spell.shard], -weight[spell.shard]])
    order = np.lexsort((change, step, unit))
    unit, level = unit[order], np.cumsum(change[order])  # every unit ends at 0, so the sum runs on
    return np.maximum.reduceat(level, np.flatnonzero(np.diff(unit, prepend=-1)))
