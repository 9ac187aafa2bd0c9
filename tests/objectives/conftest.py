from collections.abc import Callable

import pytest
import torch

from aar_dist.stream.batch import SegmentBatch


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
