"""Masked reconstruction of patches of seconds: scored at one rate, whatever rate was recorded."""

from dataclasses import replace

import pytest
import torch

from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.masked import MaskedReconstruction

RATES = (20.0, 25.0, 50.0, 100.0)


@pytest.fixture
def model():
    encoder = AAREncoder(d_embedding=64, n_layers=2, transformer_dropout=0.0, patch_seconds=1.0)
    return MaskedReconstruction(encoder, unmasked_loss_weight=0.1).eval()


def waves(segments, *rates_hz):
    """10 s of the same slow waves under the same key, recorded at these rates."""
    batch = segments(*(round(10 * rate) for rate in rates_hz))
    time_s = torch.arange(batch.values.shape[1])[None, :, None] / batch.rate_hz[:, None, None]
    values = torch.sin(2 * torch.pi * (0.3 * time_s + torch.tensor([0.1, 0.4, 0.8])))
    return replace(batch, values=values * batch.valid, key=batch.key[:1].expand(len(rates_hz)))


def test_the_mask_is_the_same_at_any_rate(segments, model):
    batch = waves(segments, *RATES)
    hidden = model.mask(batch, model.backbone.patches(batch).present)
    assert hidden.shape == (4, 3, 10)
    assert (hidden.sum(2) == 5).all()
    assert torch.equal(hidden, hidden[:1].expand_as(hidden))


def test_scores_are_nearly_the_same_at_any_rate(segments, model):
    _, metrics = model(waves(segments, *RATES))
    assert set(metrics) == {"loss", "masked_mse", "unmasked_mse", "zero_mse", "interpolation_mse"}
    for name, scores in metrics.items():
        torch.testing.assert_close(scores, scores[1:2].expand(4), rtol=0.02, atol=0.001, msg=lambda m, n=name: n + m)


def test_the_loss_does_not_depend_on_the_batch(segments, model):
    batch = segments(250, 1000, 126, 200)
    loss, metrics = model(batch)
    alone = []
    for i, n in enumerate((250, 1000, 126, 200)):
        cut = {name: getattr(batch, name)[i : i + 1] for name in ("rate_hz", "dataset", "channel", "key")}
        alone.append(
            model(replace(batch, values=batch.values[i : i + 1, :n], valid=batch.valid[i : i + 1, :n], **cut))[0]
        )
    torch.testing.assert_close(torch.stack(alone), metrics["loss"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(sum(alone) / 4, loss, atol=1e-6, rtol=1e-5)


def test_reconstruction_is_at_the_rate_of_the_patches(segments, model):
    batch = segments(1000, 130)
    batch = replace(batch, rate_hz=torch.tensor([100.0, 20.0]))
    made = model.reconstruct(batch)
    assert all(x.shape == (2, 250, 3) for x in (made.values, made.prediction, made.masked, made.valid))
    assert made.rate_hz.tolist() == [25.0, 25.0]
    assert made.valid[0].all()
    assert made.valid.any(2)[1].sum() == 162  # 6.5 s less the last half sample, 6.475 s
    for i in range(2):
        error = (made.values[i] - made.prediction[i])[made.masked[i]].square().mean()
        torch.testing.assert_close(error, model(batch)[1]["masked_mse"][i], atol=1e-6, rtol=1e-5)
    # At the place in time where it was recorded: the 20 Hz samples come back every fifth resampled one.
    torch.testing.assert_close(made.values[1, ::5][:33], batch.values[1, :130:4], atol=1e-6, rtol=0)


def test_reconstruction_of_slow_recordings_is_longer_than_they_are(segments, model):
    made = model.reconstruct(segments(200))
    assert made.prediction.shape == (1, 250, 3)
    assert made.valid.all()


def test_without_seconds_the_rate_is_the_recorded_one(segments):
    model = MaskedReconstruction(AAREncoder(d_embedding=64, n_layers=1))
    batch = segments(250, 1000)
    assert model.reconstruct(batch).rate_hz.tolist() == [25.0, 100.0]


def test_gradient_reaches_all_weights_that_take_part(segments, model):
    model.train()
    model(segments(250, 1000))[0].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    used = model.backbone.embedding.positions.grad.abs().sum(1) > 0
    assert used.tolist() == [True] * 10 + [False] * 30
