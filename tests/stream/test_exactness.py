"""Nothing lost, nothing twice, whatever the cluster does on the way; and a resume costs what a start costs."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tape import make_items

from aar_dist.base.config import load
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import PLAN_BATCHES, SegmentStream, open_stream
from aar_dist.stream.tape import Tape
from aar_dist.training.config import SCHEMA, recipe
from aar_dist.training.progress import Progress

WORLDS = (1, 2, 3, 4, 6, 8)
MOST_STATE = 1000  # bytes


def every_pair() -> list[int]:
    """World sizes in a row such that each follows each, itself included, once: an Euler walk of 37 runs."""
    left = {w: list(WORLDS) for w in WORLDS}
    stack, walk = [1], []
    while stack:
        if left[stack[-1]]:
            stack.append(left[stack[-1]].pop())
        else:
            walk.append(stack.pop())
    return walk[::-1]


def test_the_walk_goes_through_every_pair():
    assert sorted(itertools.pairwise(every_pair())) == sorted(itertools.product(WORLDS, WORLDS))


def streams(tape: Tape, world: int) -> list[SegmentStream]:
    return [
        SegmentStream(SimpleNamespace(cache=None), tape, DataConfig(), rank=rank, world_size=world)
        for rank in range(world)
    ]


def served(tape: Tape, world: int, position: int, batch: int, micro: int, n_steps: int) -> list[tuple[int, int, int]]:
    """(key, item, start) of all that the ranks of a run get, from a position, in some steps."""
    found = []
    for stream in streams(tape, world):
        with stream, mock.patch("aar_dist.stream.loader.PLAN_BATCHES", 3):  # fewer than the steps of some
            refs = stream._training_refs(position, batch, micro)
            for ref in itertools.islice(refs, n_steps * batch // world // micro):
                assert len(ref.key) == micro
                found += zip(ref.key.tolist(), ref.item.tolist(), ref.start.tolist(), strict=True)
    return found


def restarted(progress: Progress) -> Progress:
    """Through the checkpoint: only what DeepSpeed's client_state holds survives."""
    begin = replace(progress, position=0, step=0, skipped=0)
    return begin.resumed(json.loads(json.dumps(progress.state())))


legs = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5))  # micro-batch, accumulation, steps


@settings(max_examples=8, deadline=None)
@given(
    totals=st.lists(st.integers(1, 900), min_size=2, max_size=2),
    lanes=st.sampled_from([1, 5, 24, 256]),
    block=st.sampled_from([1, 16, 4096]),
    begin=st.integers(0, 10**7),
    legs=st.lists(legs, min_size=37, max_size=37),
)
def test_every_pair_of_world_sizes_goes_on_where_the_other_stopped(totals, lanes, block, begin, legs):
    """One run, restarted 36 times so that each world size follows each, with other batches, micro-batches and steps."""
    tape = Tape(make_items(2, 3, 4, 1), totals, seed=11, lanes=lanes, shuffle_block=block)
    progress = Progress.start("0" * 64, DataConfig(), 578)
    progress = replace(progress, position=begin)
    seen = []
    for world, (micro, accumulation, n_steps) in zip(every_pair(), legs, strict=True):
        batch = world * micro * accumulation
        seen += served(tape, world, progress.position, batch, micro, n_steps)
        for _ in range(n_steps):
            progress = progress.advance(batch, applied=True)
        progress = restarted(progress)
    assert progress.position == begin + len(seen)
    assert progress.step == sum(n for _, _, n in legs)
    whole = tape.segments_at(np.arange(begin, progress.position))
    expected = zip(whole.key.tolist(), whole.item.tolist(), whole.start.tolist(), strict=True)
    assert sorted(seen) == sorted(expected)
    assert len({key for key, _, _ in seen}) == len(seen)


@settings(max_examples=15, deadline=None)
@given(
    totals=st.lists(st.integers(1, 60), min_size=3, max_size=3),
    worlds=st.tuples(st.sampled_from(WORLDS), st.sampled_from(WORLDS)),
    micros=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    data=st.data(),
)
def test_whole_epochs_hold_their_quotas_after_a_restart_at_any_step(totals, worlds, micros, data):
    """Not by the tape's word for it: each chunk is drawn as often as its share asks, in every epoch."""
    tape = Tape(make_items(3, 2, 4, 2), totals, seed=3, lanes=16, shuffle_block=8)
    n = tape.n_segments
    batches = [world * micro for world, micro in zip(worlds, micros, strict=True)]
    stop = data.draw(st.integers(0, -(-3 * n // batches[0])))
    rest = -(-max(0, 3 * n - stop * batches[0]) // batches[1])
    seen = served(tape, worlds[0], 0, batches[0], micros[0], stop)
    seen += served(tape, worlds[1], stop * batches[0], batches[1], micros[1], rest)
    keys = {key: item for key, item, _ in seen}
    assert len(keys) == len(seen)
    for epoch in range(3):
        line = tape.segments_at(np.arange(epoch * n, (epoch + 1) * n))
        items = np.array([keys[key] for key in line.key.tolist()])
        drawn = np.bincount(items, minlength=len(tape.items.weight))
        for d, total in enumerate(totals):
            of = tape.items.dataset == d
            share = tape.items.weight[of] / tape.items.weight[of].sum() * total
            assert drawn[of].sum() == total
            assert (np.abs(drawn[of] - share) < 1).all()


@pytest.mark.parametrize(("before", "after"), [(1, 8), (8, 3), (6, 4), (2, 2)])
def test_what_is_cut_goes_on_too(shard_set, before, after):
    """The same with files, threads and buffers, across the end of an epoch."""
    data = DataConfig(shards=[str(shard_set)], segment_duration=1.0, lanes=16, reader_threads=2)
    with open_stream(data, "train") as stream:
        tape = stream.tape
    begin, batches = tape.n_segments - 100, (before * 12, after * 10)
    found = []
    for world, batch, position in zip((before, after), batches, (begin, begin + 3 * batches[0]), strict=True):
        for rank in range(world):
            with open_stream(data, "train", rank, world) as stream:
                share = batch // world
                for micro in itertools.islice(stream.batches(position, batch, share // 2), 6):
                    found += [(key, float(x.sum())) for key, x in zip(micro.key.tolist(), micro.values, strict=True)]
    stop = begin + 3 * sum(batches)
    assert sorted(key for key, _ in found) == sorted(
        tape.segments_at(np.arange(begin, stop)).key.view(np.int64).tolist()
    )
    assert stop > tape.n_segments
    with open_stream(data, "train") as stream:
        n = stop - begin
        alone = next(stream.batches(begin, n, n))
    summed = dict(zip(alone.key.tolist(), alone.values.sum((1, 2)).tolist(), strict=True))
    assert all(abs(total - summed[key]) < 1e-2 for key, total in found)


def test_all_that_survives_beside_the_engine_is_small():
    """The object that DeepSpeed is given, for the published recipe, late in a long run."""
    config = load(SCHEMA, ["--config", "configs/pretrain/aar.yaml"])
    progress = Progress.start("+".join(["f" * 64] * 9), config.data, config.train.seed, recipe(config))
    progress = replace(progress, position=10**15, step=10**9, skipped=10**6, run_id="x" * 36)
    assert len(json.dumps(progress.state()).encode()) < MOST_STATE
    assert restarted(progress) == progress


def test_the_state_of_another_run_is_refused():
    progress = Progress.start("0" * 64, DataConfig(), 578)
    other = Progress.start("0" * 64, DataConfig(lanes=8), 578)
    with pytest.raises(Exception, match="of another run"):
        progress.resumed(other.state())


class Counted(Tape):
    """A tape that counts what is asked of it."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.lines, self.positions = 0, 0

    def _make_line(self, epoch):
        self.lines += 1
        return super()._make_line(epoch)

    def _in_epoch(self, epoch, place):
        self.positions += len(place)
        return super()._in_epoch(epoch, place)


@pytest.mark.parametrize("epoch", [0, 1, 1000])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_the_first_batch_after_a_resume_costs_what_the_first_of_all_costs(epoch, share):
    """One epoch's line, and the segments of the batches that are planned together: nothing before them is gone over."""
    tape = Counted(make_items(2, 5, 4, 1), [900_000, 100_000], seed=2, lanes=256, shuffle_block=64)
    position = int((epoch + share) * tape.n_segments)
    with streams(tape, 4)[1] as stream:
        next(stream._training_refs(position, 64, 16))
    assert tape.lines == 1
    assert tape.positions == PLAN_BATCHES * 16
