"""Recordings, shard sets and batches that many tests read."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from tiny_sets import LONGEST_S, write_dataset

os.environ.setdefault("OMP_NUM_THREADS", "1")

from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.batch import SegmentBatch

settings.register_profile("any_machine", deadline=None)  # how long an example takes says nothing where cores are shared
settings.load_profile("any_machine")

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, so that no worker is left with it at the end."""
    items.sort(key=lambda item: "test_resume" not in item.nodeid)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Where the published recordings are."""
    folder = Path(os.environ.get("SHARED_DATA", ROOT / "../shared/data")).resolve()
    assert folder.is_dir(), f"{folder}: no published recordings; set SHARED_DATA to the folder of the archives"
    return folder


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Path:
    """Two data sets: ``slow`` (10 Hz, int16) and ``fast`` (50 Hz, float32, with gyroscope), four subjects each."""
    root = tmp_path_factory.mktemp("recordings")
    write_dataset(root, "slow", rate=10.0, seconds={f"s{i}": [900.0 + 13 * i, 31.7] for i in range(4)}, dtype="<i2")
    write_dataset(root, "fast", rate=50.0, seconds={f"f{i}": [900.0 + 7 * i, 2.5, 0.7] for i in range(4)}, gyr=True)
    return root


@pytest.fixture(scope="session")
def options() -> BuildOptions:
    return BuildOptions(datasets=("fast", "slow"), longest_segment_s=LONGEST_S, shard_bytes=700_000)


@pytest.fixture(scope="session")
def shard_set(recordings, options, tmp_path_factory) -> Path:
    """The shards of ``recordings``, built for segments up to LONGEST_S."""
    return build(recordings, tmp_path_factory.mktemp("shards") / "set", options, workers=1).folder


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def segments() -> Callable[..., SegmentBatch]:
    """Noise segments of the given lengths in samples, padded to the longest (or to ``pad_to``)."""

    def make(*lengths: int, n_channels: int = 3, pad_to: int = 0, seed: int = 1) -> SegmentBatch:
        T = max(*lengths, pad_to, 1)
        values = torch.zeros(len(lengths), T, n_channels)
        valid = torch.zeros(values.shape, dtype=torch.bool)
        for i, n in enumerate(lengths):
            values[i, :n] = torch.randn(n, n_channels, generator=torch.Generator().manual_seed(1000 * seed + i))
            valid[i, :n] = True
        return SegmentBatch(
            values=values,
            valid=valid,
            rate_hz=torch.tensor([n / 10 for n in lengths]),
            dataset=torch.zeros(len(lengths), dtype=torch.int64),
            channel=torch.arange(n_channels).expand(len(lengths), n_channels),
            key=torch.arange(len(lengths)) * 7919 + seed,
        )

    return make
