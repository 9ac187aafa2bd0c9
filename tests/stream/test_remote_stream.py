"""A stream from a server equals the stream from the folder behind it."""

import itertools
from dataclasses import replace

import pytest
import torch
from servers import nginx

from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import open_stream


@pytest.fixture
def data(shard_set) -> DataConfig:
    return DataConfig(shards=[str(shard_set)], segment_duration=1.0, lanes=16)


@pytest.fixture(scope="module")
def url(shard_set, tmp_path_factory):
    with nginx(shard_set.parent, tmp_path_factory.mktemp("nginx")) as url:
        yield f"{url}/{shard_set.name}"


def batches(data, n=6, **options):
    with open_stream(data, "train", **options) as stream:
        return list(itertools.islice(stream.batches(1000, 64, 64), n))


def same(ours, theirs) -> bool:
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(ours, theirs, strict=True)
        for name in ("values", "valid", "key")
    )


def test_batches_from_a_server_equal_local_ones(data, url, tmp_path):
    remote = replace(data, shards=[url], cache=str(tmp_path / "cache"))
    assert same(batches(remote), batches(data))
