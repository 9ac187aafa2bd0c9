"""Host memory is used again, and never while anybody holds a tensor over it."""

import itertools
import threading
from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aar_dist.stream.buffers import ALIGN, HostMemory
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import open_stream
from aar_dist.stream.segments import Cutter


def test_memory_comes_back_with_the_last_tensor_over_it():
    memory = HostMemory()
    first = memory.empty((3, 5), torch.float32)
    place, part = first.data_ptr(), first[1]
    del first
    part.fill_(7)
    second = memory.empty((3, 5), torch.float32)
    assert second.data_ptr() != place, "a view still holds it"
    second.zero_()
    assert part.tolist() == [7.0] * 5
    del part
    assert memory.empty((15,), torch.int32).data_ptr() == place


def test_memory_of_any_size_and_type():
    memory = HostMemory()
    for size, dtype in (((0, 4), torch.bool), ((1,), torch.int8), ((2, 3, 4), torch.float64), ((17,), torch.int16)):
        made = memory.empty(size, dtype)
        assert made.shape == size
        assert made.dtype == dtype
        assert made.data_ptr() % ALIGN == 0 or not made.numel()
        made.fill_(1)
        assert bool((made == 1).all())


def test_a_batch_that_is_kept_is_not_written_over(shard_set):
    data = DataConfig(shards=[str(shard_set)], segment_duration=1.0, lanes=16, kinds=["gyr"], prefetch_batches=1)
    with open_stream(data, "train") as stream:
        batches = stream.batches(0, 32, 32)
        kept = next(batches)
        copy = kept.values.clone()
        for _ in itertools.islice(batches, 12):
            pass
        assert torch.equal(kept.values, copy)
        assert torch.equal(next(stream.batches(0, 32, 32)).values, copy)


REFERENCES = {
    "itself": lambda x: x,
    "a view": lambda x: x.transpose(0, 2)[0],
    "a slice": lambda x: x[1:2, ::3],
    "one number": lambda x: x[-1, -1, -1:],
    "as an array": lambda x: x.numpy()[0],
    "moved nowhere": lambda x: x.to("cpu"),
    "as another type": lambda x: x.view(torch.uint8),
    "its storage": lambda x: x.untyped_storage(),
    "without gradients": lambda x: x.detach().requires_grad_(x.is_floating_point()),
}


def content(reference) -> bytes:
    if isinstance(reference, torch.UntypedStorage):
        return bytes(reference.tolist())
    return reference.tobytes() if hasattr(reference, "tobytes") else reference.detach().numpy().tobytes()


@settings(max_examples=6, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(REFERENCES)), st.booleans()), min_size=40, max_size=40))
def test_whatever_is_kept_of_a_batch_stays_as_it_was(shard_set, kept):
    """Three threads, batches of several shapes, and references of all kinds; the rest is dropped and used again."""
    data = DataConfig(shards=[str(shard_set)], segment_duration=1.0, lanes=16, kinds=[], reader_threads=3)
    with open_stream(replace(data, normalize="segment" if kept[0][1] else "none"), "train") as stream:
        held = []
        batches = stream.batches(0, 32, 16)
        for (how, masks), batch in zip(kept, batches, strict=False):
            reference = REFERENCES[how](batch.valid if masks else batch.values)
            held.append((reference, content(reference)))
            del batch, reference
            next(batches)
        assert all(content(reference) == before for reference, before in held)


def test_a_list_of_batches_holds_each_as_it_was(shard_set):
    data = DataConfig(shards=[str(shard_set)], segment_duration=1.0, lanes=16, kinds=["gyr"], reader_threads=2)
    with open_stream(data, "val") as stream:
        first = list(stream.evaluation(64, 64))
        for (a, _), (b, _) in zip(first, stream.evaluation(64, 64), strict=True):
            assert torch.equal(a.values, b.values)
            assert torch.equal(a.key, b.key)
        assert len({batch.values.data_ptr() for batch, _ in first}) == len(first)


def test_batches_that_nobody_will_see_are_not_cut(shard_set, monkeypatch):
    data = DataConfig(shards=[str(shard_set)], segment_duration=1.0, lanes=16, prefetch_batches=8)
    cut, gate, asked = Cutter.cut, threading.Event(), []

    def slow(self, plan):
        asked.append(plan)
        assert len(asked) == 1 or gate.wait(20)
        return cut(self, plan)

    monkeypatch.setattr(Cutter, "cut", slow)
    with open_stream(data, "train") as stream:
        batches = stream.batches(0, 32, 32)
        next(batches)
        batches.close()
        gate.set()
    assert len(asked) <= 2
