"""The tape: exact totals, the same global batches for any cluster, nothing lost, nothing twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aar_dist.base.hashing import hash_np
from aar_dist.stream.tape import TAPE_VERSION, Items, Tape, _golden_order, permuted


def make_items(n_datasets: int, shards_each: int, chunks_each: int, seed: int) -> Items:
    rng = np.random.default_rng(seed)
    dataset = np.repeat(np.arange(n_datasets), shards_each * chunks_each)
    shard = np.repeat(np.arange(n_datasets * shards_each), chunks_each)
    n_starts = rng.integers(1, 5000, len(shard))
    return Items(
        dataset=dataset,
        shard=shard,
        shard_word=hash_np(seed, np.arange(n_datasets * shards_each)),
        weight=n_starts / 10.0,
        n_starts=n_starts,
    )


tapes = st.builds(
    lambda d, s, c, totals, seed, lanes, block: Tape(
        make_items(d, s, c, seed), (totals * d)[:d], seed=seed, lanes=lanes, shuffle_block=block
    ),
    d=st.integers(1, 3),
    s=st.integers(1, 4),
    c=st.integers(1, 6),
    totals=st.lists(st.integers(1, 400), min_size=3, max_size=3),
    seed=st.integers(0, 10**6),
    lanes=st.sampled_from([1, 2, 7, 64, 256]),
    block=st.sampled_from([1, 5, 64, 4096]),
)


@settings(max_examples=80, deadline=None)
@given(tape=tapes, epoch=st.integers(0, 50))
def test_an_epoch_draws_every_data_set_exactly(tape, epoch):
    positions = epoch * tape.n_segments + np.arange(tape.n_segments)
    refs = tape.segments_at(positions)
    drawn = np.bincount(tape.items.dataset[refs.item], minlength=len(tape.totals))
    assert drawn.tolist() == tape.totals
    assert (refs.start >= 0).all()
    assert (refs.start < tape.items.n_starts[refs.item]).all()
    assert len(np.unique(refs.key)) == len(refs.key)


@settings(max_examples=60, deadline=None)
@given(tape=tapes, epoch=st.integers(0, 9))
def test_draws_of_a_chunk_fall_into_their_own_strata(tape, epoch):
    positions = epoch * tape.n_segments + np.arange(tape.n_segments)
    refs = tape.segments_at(positions)
    for item in np.unique(refs.item):
        starts, n = np.sort(refs.start[refs.item == item]), tape.items.n_starts[item]
        q = len(starts)
        strata = [(k * n // q, max((k + 1) * n // q, k * n // q + 1)) for k in range(q)]
        assert all(low <= start < high for start, (low, high) in zip(starts, strata, strict=True))


@settings(max_examples=60, deadline=None)
@given(tape=tapes, batch=st.sampled_from([8, 16, 64, 512]), position=st.integers(0, 3000))
def test_global_batches_are_the_same_for_every_world_size(tape, batch, position):
    whole = tape.batches(position, batch, 3)
    assert np.array_equal(np.sort(whole.reshape(-1)), position + np.arange(3 * batch))
    for world in (1, 2, 4, 8):
        share = batch // world
        parts = [tape.batches(position, batch, 3)[:, r * share : (r + 1) * share] for r in range(world)]
        assert np.array_equal(np.concatenate(parts, axis=1), whole)
    one_at_a_time = np.concatenate([tape.batches(position + i * batch, batch, 1) for i in range(3)])
    assert np.array_equal(one_at_a_time, whole)


@settings(max_examples=40, deadline=None)
@given(tape=tapes, sizes=st.lists(st.sampled_from([1, 3, 8, 50, 512]), min_size=2, max_size=12))
def test_a_batch_size_changed_in_mid_epoch_loses_and_repeats_nothing(tape, sizes):
    position, seen = 0, []
    for size in sizes:
        seen.append(tape.batches(position, size, 1)[0])
        position += size
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(position))


def test_fewer_segments_than_a_batch():
    tape = Tape(make_items(1, 1, 2, 0), [3], seed=1, lanes=256, shuffle_block=4096)
    refs = tape.segments_at(tape.batches(0, 512, 2))
    assert refs.item.shape == (2, 512)
    assert tape.lanes == 3


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 300), key=st.integers(0, 2**64 - 1))
def test_permuted_is_a_permutation(size, key):
    index = np.arange(size)
    out = permuted(index, np.full(size, size), np.full(size, key, np.uint64))
    assert np.array_equal(np.sort(out), index)


def test_a_share_of_three_tenths_is_drawn_in_three_epochs_of_ten():
    items = Items(
        dataset=np.zeros(10, np.int64),
        shard=np.zeros(10, np.int64),
        shard_word=np.zeros(1, np.uint64),
        weight=np.ones(10),
        n_starts=np.full(10, 7),
    )
    tape = Tape(items, [3], seed=5, lanes=1, shuffle_block=8)
    drawn = np.stack([tape._quotas(epoch) for epoch in range(100)])
    assert (drawn.sum(1) == 3).all()
    for first in range(0, 100, 10):
        assert (np.abs(drawn[first : first + 10].sum(0) - 3) <= 1).all()
    assert (np.abs(drawn.sum(0) - 30) <= 2).all()


def test_any_stretch_is_a_fair_sample():
    tape = Tape(make_items(2, 20, 4, 3), [6000, 2000], seed=9, lanes=256, shuffle_block=4096)
    for position in range(0, 4000, 512):
        refs = tape.segments_at(tape.batches(position, 512, 1)[0])
        assert abs((tape.items.dataset[refs.item] == 0).mean() - 0.75) < 0.06


@pytest.mark.parametrize("batch", [16, 32, 100])
def test_a_small_batch_is_a_fair_sample_too(batch):
    """One shard for each data set, fewer segments in a batch than lanes: every batch has its share of both."""
    tape = Tape(make_items(2, 1, 9, 3), [3000, 1000], seed=9, lanes=256, shuffle_block=4096)
    for position in range(0, 4000 - batch, batch):
        refs = tape.segments_at(tape.batches(position, batch, 1)[0])
        assert abs((tape.items.dataset[refs.item] == 1).sum() - 0.25 * batch) <= 2


@given(n=st.integers(1, 2000))
def test_the_order_of_lanes_is_a_permutation(n):
    assert np.array_equal(np.sort(_golden_order(n)), np.arange(n))


def test_a_resume_at_any_position_sees_the_same_segments():
    tape = Tape(make_items(2, 3, 4, 1), [700, 300], seed=2, lanes=64, shuffle_block=16)
    whole = tape.segments_at(np.arange(3000))
    fresh = Tape(make_items(2, 3, 4, 1), [700, 300], seed=2, lanes=64, shuffle_block=16)
    part = fresh.segments_at(np.arange(2971, 3000))
    assert np.array_equal(part.key, whole.key[2971:])
    assert np.array_equal(part.start, whole.start[2971:])


def test_golden():
    """The bits of version 1. A change of them is a new TAPE_VERSION, for no run could go on across it."""
    tape = Tape(make_items(2, 2, 3, 0), [10, 7], seed=578, lanes=4, shuffle_block=3)
    refs = tape.segments_at(np.array([0, 1, 2, 16, 17, 40]))
    assert TAPE_VERSION == 1
    assert (refs.item.tolist(), refs.start.tolist(), [int(k) for k in refs.key]) == GOLDEN


GOLDEN = (
    [9, 2, 0, 10, 0, 9],
    [1554, 1003, 324, 1556, 890, 2167],
    [
        5010481494566933228,
        6428600716333704670,
        9751086146955816719,
        17631239563411911933,
        10843678757595713072,
        6010797010838970392,
    ],
)


@pytest.mark.parametrize("epoch", [0, 7])
def test_shards_of_a_data_set_are_spread_over_the_line(epoch):
    items = make_items(2, 12, 2, 4)
    tape = Tape(items, [4000, 1000], seed=1, lanes=8, shuffle_block=64)
    line = tape._line(epoch)
    order = items.shard[line.item]
    of_first = np.flatnonzero(items.dataset[line.item] == 1) / len(order)
    assert of_first[0] < 0.1
    assert of_first[-1] > 0.9
