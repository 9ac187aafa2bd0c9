"""Host memory is used again, and never while anybody holds a tensor over it."""

import itertools

import torch

from aar_dist.stream.buffers import ALIGN, HostMemory
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import open_stream


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
