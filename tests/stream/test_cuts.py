"""Plans of cuts: a tape's batch as it stands, a shuffled one sorted by shard, with the same segments."""

import numpy as np
import torch

from aar_dist.stream.buffers import BufferRing
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import open_stream
from aar_dist.stream.segments import Cutter, assemble
from aar_dist.stream.tape import SegmentRefs

CPU = torch.device("cpu")


def shuffled(refs: SegmentRefs, order: np.ndarray) -> SegmentRefs:
    return SegmentRefs(item=refs.item[order], start=refs.start[order], key=refs.key[order])


def test_a_shuffled_batch_is_sorted_by_shard_and_comes_out_in_its_own_order(shard_set):
    order = np.random.default_rng(0).permutation(512)
    for kinds, one_kind in ((["gyr"], True), (["acc"], False)):
        data = DataConfig(shards=[str(shard_set)], segment_duration=1.0, lanes=16, kinds=kinds)
        with open_stream(data, "train") as stream:
            cutter = Cutter(stream.source, BufferRing(pinned=False))
            tape = stream.tape.segments_at(stream.tape.batches(700, 512, 1)[0])
            plans = cutter.plan([tape, shuffled(tape, order)]) + cutter.plan([shuffled(tape, order)])
            made = [assemble(cutter.cut(plan), stream.source.n_columns, CPU, "none") for plan in plans]
            cutter.close()
        n_shards = len(stream.source.shards)
        assert n_shards > 1
        assert all(len(group.runs) <= n_shards for group in plans[2].groups), "one gather a shard"
        assert (cutter.plan([tape])[0].groups[0].place is None) == one_kind, "as it stands: no scatter"
        for batch in made[1:]:
            for name in ("values", "valid", "key", "rate_hz", "channel", "dataset"):
                assert torch.equal(getattr(batch, name), getattr(made[0], name)[order]), name
