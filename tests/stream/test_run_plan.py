"""The plan against simulations that go step by step, and against what real streams read."""

import itertools
import json
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from test_tape import make_items

from aar_dist.base.config import load
from aar_dist.stream.loader import open_stream
from aar_dist.stream.plan.cache_model import fetches, least_without_refetch
from aar_dist.stream.plan.command import SCHEMA
from aar_dist.stream.plan.demand import Uses, counted, derived, most_at_once, per_node, spells, units_of_lanes
from aar_dist.stream.plan.quality import _repeats
from aar_dist.stream.plan.report import make_plan
from aar_dist.stream.staging import HORIZON
from aar_dist.stream.tape import Tape

tapes = st.builds(
    lambda shards, totals, lanes, block, seed: Tape(
        make_items(2, shards, 3, seed), totals, seed=seed, lanes=lanes, shuffle_block=block
    ),
    shards=st.integers(1, 5),
    totals=st.lists(st.integers(20, 400), min_size=2, max_size=2),
    lanes=st.sampled_from([1, 3, 8, 12]),
    block=st.sampled_from([4, 32, 4096]),
    seed=st.integers(0, 100),
)

border = Tape(make_items(2, 1, 3, 0), [20, 147], seed=0, lanes=8, shuffle_block=4)
"""Two units share a lane of it."""


def by_hand(tape: Tape, batch: int, n_steps: int, units: int) -> dict[tuple[int, int, int], list[int]]:
    """(unit, shard, lane of an epoch) -> the steps in which a segment is read, one segment at a time."""
    steps = defaultdict(list)
    for step in range(n_steps):
        positions = tape.batches(step * batch, batch, 1)[0].tolist()
        for place, position in enumerate(positions):
            item = int(tape.segments_at(np.array([position])).item[0])
            lane = position // tape.n_segments * tape.lanes + int(tape.lane_of(np.array([position]))[0])
            steps[place * units // batch, int(tape.items.shard[item]), lane].append(step)
    return steps


def as_dict(uses: Uses) -> dict[tuple[int, int, int], tuple[int, int]]:
    keys = zip(uses.unit.tolist(), uses.shard.tolist(), uses.lane.tolist(), strict=True)
    return dict(zip(keys, zip(uses.first.tolist(), uses.last.tolist(), strict=True), strict=True))


@settings(max_examples=15, deadline=None)
@given(tape=tapes, units=st.sampled_from([1, 2, 4]), share=st.integers(1, 12), n_steps=st.integers(1, 20))
def test_counted_uses_are_those_of_every_segment(tape, units, share, n_steps):
    steps = by_hand(tape, units * share, n_steps, units)
    expected = {key: (min(found), max(found)) for key, found in steps.items()}
    assert as_dict(counted(tape, units * share, n_steps, units)) == expected


@settings(max_examples=60, deadline=None)
@given(tape=tapes, units=st.sampled_from([1, 2, 4, 6]), share=st.integers(1, 12), epochs=st.integers(1, 3))
@example(tape=border, units=2, share=9, epochs=2)
def test_derived_uses_cover_the_counted_ones_and_are_right_to_a_block(tape, units, share, epochs):
    batch = units * share
    assume(batch <= tape.n_segments)
    n_steps = max(1, epochs * tape.n_segments // batch)
    exact = as_dict(counted(tape, batch, n_steps, units))
    found = as_dict(derived(tape, batch, n_steps, units, np.arange(units)))
    assert set(exact) <= set(found)
    window = tape.lanes * tape.shuffle_block
    served = [units_of_lanes(tape, batch, units, epoch) for epoch in range(epochs + 1)]
    for key, (first, last) in exact.items():
        assert found[key][0] <= first
        assert last <= found[key][1]
        epoch, lane = divmod(key[2], tape.lanes)
        if served[epoch][0][lane] == served[epoch][1][lane]:  # of what units share, one may see less by chance
            assert (first - found[key][0]) * batch <= window + batch
            assert (found[key][1] - last) * batch <= window + batch
    if batch % tape.lanes == 0 and tape.lanes % units == 0 and epochs * tape.n_segments % batch == 0:
        assert set(exact) == set(found)  # every lane belongs to one unit, and every block is read to its end


@settings(max_examples=60, deadline=None)
@given(tape=tapes, units=st.sampled_from([2, 4]), share=st.integers(1, 12), n_steps=st.integers(1, 40))
def test_bytes_in_use_at_one_time(tape, units, share, n_steps):
    uses = counted(tape, units * share, n_steps, units)
    sizes = np.arange(100, 100 + len(tape.items.shard_word))
    most, spans = [], list(zip(*(getattr(uses, f).tolist() for f in ("unit", "shard", "first", "last")), strict=True))
    for unit in np.unique(uses.unit):
        mine = [spell for spell in spans if spell[0] == unit]
        held = [{s for _, s, first, last in mine if first <= step <= last} for step in range(n_steps)]
        most.append(max(sum(int(sizes[s]) for s in shards) for shards in held))
    assert most_at_once(uses, sizes).tolist() == most


def play(uses: Uses, sizes, capacity: int, speed: float, step_s: float):
    """The caches, step by step: (fetches, evictions, stall), or None where the cache is too small."""
    spell = spells(uses)
    told = sorted(zip(*(getattr(spell, f).tolist() for f in ("first", "unit", "shard", "last")), strict=True))
    held: dict[int, dict[int, int]] = defaultdict(dict)
    link, starts, ends, log, evicted = defaultdict(float), {}, {}, [], 0
    for step in range(int(spell.last.max()) + 1):
        planned = ends[step - 1] if step else 0.0
        ready = planned
        for first, node, shard, last in told:
            if first != step:
                continue
            room = 0.0
            if shard not in held[node]:
                while sum(sizes[s] for s in held[node]) + sizes[shard] > capacity:
                    idle = [(end, s) for s, end in held[node].items() if end < step]
                    if not idle:
                        return None
                    end, gone = min(idle)
                    del held[node][gone]
                    evicted += 1
                    room = max(room, ends[end])
                ahead = starts[step - HORIZON] if step > HORIZON else 0.0
                link[node] = max(link[node], room, ahead) + sizes[shard] / speed
                ready = max(ready, link[node])
                log.append((node, shard, step))
            held[node][shard] = last
        starts[step] = ready
        ends[step] = ready + step_s
    return log, evicted, starts[step] - step * step_s


@settings(max_examples=60, deadline=None)
@given(
    tape=tapes,
    units=st.sampled_from([1, 2, 3]),
    share=st.integers(1, 12),
    room=st.floats(0.2, 3.0),
    speed=st.sampled_from([50.0, 1000.0]),
)
def test_the_caches_are_those_played_step_by_step(tape, units, share, room, speed):
    uses = counted(tape, units * share, max(1, 2 * tape.n_segments // (units * share)), units)
    sizes = 100 + 10 * np.arange(len(tape.items.shard_word)) % 70
    capacity = int(room * most_at_once(uses, sizes).max())
    expected = play(uses, sizes.tolist(), capacity, speed, 0.5)
    found = fetches(uses, sizes, capacity=capacity, bytes_per_s=speed, step_s=0.5)
    assert found.short == (expected is None) == (room < 1)
    if expected:
        log, evicted, stall = expected
        assert list(zip(found.node.tolist(), found.shard.tolist(), found.step.tolist(), strict=True)) == log
        assert found.evicted == evicted
        assert found.stall_s == pytest.approx(stall, abs=1e-6)
        seen = [entry[:2] for entry in log]
        assert found.again.tolist() == [entry in seen[:i] for i, entry in enumerate(seen)]


def test_the_smallest_cache_without_second_fetches():
    tape = Tape(make_items(2, 6, 3, 5), [600, 300], seed=5, lanes=8, shuffle_block=4)
    uses, sizes = counted(tape, 16, 160, 2), np.full(12, 100)
    low, high = int(most_at_once(uses, sizes).max()), 1200
    found = least_without_refetch(uses, sizes, low, high, rounds=20)
    assert not fetches(uses, sizes, capacity=found).again.any()
    assert fetches(uses, sizes, capacity=found - 100).again.any()


@settings(max_examples=40, deadline=None)
@given(quota=st.lists(st.integers(0, 12), min_size=1, max_size=8), share=st.floats(0.05, 1.2))
def test_repeats_in_an_ideal_shuffle(quota, share):
    """Against the sum over groups of the chance that none of a group is drawn, from products."""
    n = sum(quota)
    assume(n >= 2)
    batch = max(1, int(share * n))
    missed = [np.prod([max(0, n - q - i) / (n - i) for i in range(min(batch, n))]) for q in quota if q]
    assert _repeats(np.array(quota), n, batch) == pytest.approx(1 - sum(1 - m for m in missed) / batch, abs=1e-9)


def test_the_plan_is_what_real_streams_then_read(shard_set):
    """Shards of every rank and node, counted from the segments that the streams of all ranks cut."""
    flags = "--nodes 2 --ranks_per_node 3 --batch_size 36 --epochs 2 --segment_duration 1 --lanes 12 --shuffle_block 64"
    config = load(SCHEMA, ["--data.shards", str(shard_set), *flags.split()])
    plan = make_plan(config)
    ranks = [set() for _ in range(6)]
    for rank in range(6):
        with open_stream(config.data, "train", rank, 6) as stream:
            sizes = [shard.size for shard in stream.source.shards]
            for step, refs in enumerate(itertools.islice(stream._training_refs(0, 36, 6), plan.steps)):
                epoch = stream._mine(stream.tape.batches(step * 36, 36, 1))[0] // plan.segments
                shard = stream.source.items.shard[refs.item]
                ranks[rank] |= set(zip(epoch.tolist(), shard.tolist(), strict=True))
    nodes = [set.union(*ranks[:3]), set.union(*ranks[3:])]
    assert plan.steps == 2 * plan.segments // 36
    assert plan.not_exact == ["shuffle quality: 64 batches of the first epoch"]
    epochs = plan.steps * 36 / plan.segments
    for found, told in ((ranks, plan.demand.shards_per_rank), (nodes, plan.demand.shards_per_node)):
        counts = [len(shards) / epochs for shards in found]
        assert (told.least, told.mean, told.most) == pytest.approx(
            (min(counts), np.mean(counts), max(counts)), abs=1e-3
        )
    fetched = [sum(sizes[s] for s in {s for _, s in shards}) for shards in nodes]
    assert sum(e.fetched.mean for e in plan.caching.epochs) == pytest.approx(np.mean(fetched))


def test_nodes_read_what_their_ranks_read():
    tape = Tape(make_items(2, 4, 3, 1), [300, 200], seed=1, lanes=8, shuffle_block=16)
    ranks, nodes = counted(tape, 48, 20, 12), counted(tape, 48, 20, 3)
    assert as_dict(per_node(ranks, 4)) == as_dict(nodes)
    assert json.dumps(sorted(as_dict(nodes)))  # plain numbers all through
