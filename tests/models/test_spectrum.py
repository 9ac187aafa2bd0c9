"""The spectrum of a patch: that of an FFT, blind to phase, nothing of nothing."""

import numpy as np
import pytest
import torch

from aar_dist.models.embeddings import SpectralEmbedding
from aar_dist.models.spectrum import FLOOR, log_spectrum, n_frequencies
from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.pooling import average, grouped_tokens


@pytest.mark.parametrize("size", [1, 2, 24, 25, 200])
def test_it_is_that_of_an_fft(size):
    patches = np.random.default_rng(size).normal(size=(3, 7, size)).astype("f4")
    power = np.abs(np.fft.rfft(patches, norm="ortho")) ** 2
    found = log_spectrum(torch.from_numpy(patches))
    assert found.shape == (3, 7, n_frequencies(size))
    np.testing.assert_allclose(found.numpy(), np.log1p(power / FLOOR**2) / 2, rtol=1e-4, atol=1e-4)


def test_it_is_in_float32_under_autocast_and_where_nothing_is_computed():
    patches = 9.81 + 0.01 * torch.randn(4, 25)
    with torch.autocast("cpu", torch.bfloat16):
        found = log_spectrum(patches)
    assert torch.equal(found, log_spectrum(patches))
    assert log_spectrum(patches.to("meta")).shape == (4, 13)


def test_a_hidden_patch_is_nothing_and_half_precision_will_do():
    assert not log_spectrum(torch.zeros(2, 25)).any()
    embedding = SpectralEmbedding(25, 64)
    assert not embedding(torch.zeros(2, 25)).any()
    patches = torch.randn(4, 25)
    whole, half = embedding(patches), embedding.bfloat16()(patches.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), whole, atol=0.1, rtol=0.05)


def test_loud_and_quiet_swings_of_any_phase_are_told_apart_before_anything_is_learned(segments):
    """By the mean token of a segment alone: that of a matrix sees hardly anything of a swing whose phase wanders."""
    shares = {}
    for kind in ("linear", "spectral"):
        torch.manual_seed(0)
        backbone = AAREncoder(d_embedding=64, n_layers=1, embedding_type=kind).eval()
        mean = {loudness: _mean_tokens(backbone, segments, loudness) for loudness in (0.1, 0.3)}
        between = (mean[0.1].mean(0) - mean[0.3].mean(0)).norm()
        shares[kind] = float(between / torch.cat([m - m.mean(0) for m in mean.values()]).norm(dim=1).mean())
    assert shares["spectral"] > 4 * shares["linear"]


def _mean_tokens(backbone: AAREncoder, segments, loudness: float) -> torch.Tensor:
    batch = segments(*[500] * 30, n_channels=1)
    phase = 6 * torch.rand(30, 20, 1) + torch.arange(25) / 2.7
    batch.values[:] = loudness * torch.sin(phase).view(30, 500, 1)
    with torch.no_grad():
        return average(*grouped_tokens(backbone, batch))[:, 0]
