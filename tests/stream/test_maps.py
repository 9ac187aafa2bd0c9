"""Shards in memory: more of them than may be open, and files that go wrong."""

import itertools
import os
import resource
from dataclasses import replace

import pytest
import torch

from aar_dist.shards.build import build
from aar_dist.stream import maps
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import open_stream
from aar_dist.stream.segments import Cutter


@pytest.fixture
def data(shard_set) -> DataConfig:
    return DataConfig(shards=[str(shard_set)], segment_duration=1.0, lanes=2, shuffle_block=64)


@pytest.fixture(scope="module")
def small_shards(recordings, options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "small"
    return build(recordings, folder, replace(options, shard_bytes=200_000), workers=1).folder


def values(data, n=150):
    with open_stream(data, "train") as stream:
        return [batch.values for batch in itertools.islice(stream.batches(0, 64, 64), n)]


@pytest.mark.parametrize("threads", [1, 2])
def test_more_shards_than_may_be_mapped(data, small_shards, monkeypatch, threads):
    data = replace(data, shards=[str(small_shards)])
    expected = values(data)
    monkeypatch.setattr(maps, "MOST_MAPS", 2)
    data = replace(data, reader_threads=threads)
    most, cut = [], Cutter.cut

    def count(self, plan):
        batch = cut(self, plan)
        most.append(len(self.maps._maps))
        return batch

    monkeypatch.setattr(Cutter, "cut", count)
    assert all(map(torch.equal, values(data), expected))
    assert max(most) < 6 or threads == 2, "of six; each thread keeps the shards of its batch"


def test_a_program_asks_for_as_many_open_files_as_it_may_have():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        most = maps.most_maps()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert most == min(maps.MOST_MAPS, hard // 8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_map_that_fails_leaves_no_open_file(data, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(maps.np, "memmap", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with open_stream(data, "train") as stream:
        with pytest.raises(OSError, match="Cannot allocate") as caught:
            next(stream.batches(0, 64, 64))
        stream.close()
        assert caught.value.__traceback__, "it holds what was open, unless that was closed"
        assert len(os.listdir("/proc/self/fd")) == before
