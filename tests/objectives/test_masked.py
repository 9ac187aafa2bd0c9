"""Masked reconstruction: which patches are hidden, what is scored, and that it learns."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aar_dist.base.errors import ConfigError
from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.masked import MaskedReconstruction


def objective(*, masking_ratio=0.5, unmasked_loss_weight=0.0, spectral_loss_weight=0.0, **encoder):
    encoder = {"d_embedding": 64, "n_layers": 2, "transformer_dropout": 0.0} | encoder
    return MaskedReconstruction(
        AAREncoder(**encoder),
        masking_ratio=masking_ratio,
        unmasked_loss_weight=unmasked_loss_weight,
        spectral_loss_weight=spectral_loss_weight,
    )


def hidden(model, batch):
    return model.mask(batch, model.backbone.patches(batch).present)


def rows(batch, index, length=None):
    """Some segments of a batch, in any order, cut to a length."""
    cut = {name: getattr(batch, name)[index] for name in ("rate_hz", "dataset", "channel", "key")}
    return replace(batch, values=batch.values[index, :length], valid=batch.valid[index, :length], **cut)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75, 0.9])
def test_int_of_the_visible_share_stays_visible(segments, ratio):
    batch = segments(1000, 500, 250, 270, 75, 50)
    counts = hidden(objective(masking_ratio=ratio), batch).sum(2)
    for i, n in enumerate((40, 20, 10, 11, 3, 2)):
        assert counts[i].tolist() == [n - max(1, int(n * (1 - ratio)))] * 3


def test_the_mask_follows_from_the_key_alone(segments):
    model = objective()
    batch = segments(250, 1000, 500, 250)
    whole = hidden(model, batch)
    order = [3, 1, 0, 2]
    assert torch.equal(hidden(model, rows(batch, order)), whole[order])
    assert torch.equal(hidden(model, rows(batch, [0, 3], 250)), whole[[0, 3], :, :10])
    assert not torch.equal(hidden(model, replace(batch, key=batch.key + 1)), whole)
    assert not torch.equal(whole[0, 0], whole[0, 1])  # each axis by itself
    swapped = replace(batch, channel=batch.channel[:, [1, 0, 2]])  # the channel, not its place, is the address
    assert torch.equal(hidden(model, swapped)[:, :2], whole[:, [1, 0]])


def test_every_patch_is_hidden_equally_often(segments):
    batch = segments(*[1000] * 600)
    share = hidden(objective(), batch).float().mean((0, 1))
    assert (share - 0.5).abs().max() < 0.06  # five standard deviations of 1800 draws


@pytest.mark.parametrize("spectral", [0.0, 0.5])
@pytest.mark.parametrize("mode", ["multi", "single"])
def test_the_loss_does_not_depend_on_the_batch(segments, mode, spectral):
    model = objective(input_mode=mode, unmasked_loss_weight=0.1, spectral_loss_weight=spectral)
    batch = segments(250, 1000, 500, 250)
    loss, metrics = model(batch)
    parts = [model(rows(batch, [0, 3], 250)), model(rows(batch, [2, 1]))]
    torch.testing.assert_close(sum(part for part, _ in parts) / 2, loss, atol=1e-6, rtol=1e-5)
    alone = torch.cat([each["loss"] for _, each in parts])
    torch.testing.assert_close(alone[[0, 3, 2, 1]], metrics["loss"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(metrics["loss"].mean(), loss.detach(), atol=1e-6, rtol=1e-5)
    assert not metrics["loss"].requires_grad


@pytest.mark.parametrize("spectral", [0.0, 0.5])
def test_samples_that_are_not_valid_count_for_nothing(segments, spectral):
    model = objective(spectral_loss_weight=spectral).eval()
    batch = segments(500, 500)
    valid = batch.valid.clone()
    valid[0, :, 1], valid[1, 110:130] = False, False
    holed = replace(batch, valid=valid)
    loss, metrics = model(holed)
    garbage = replace(holed, values=torch.where(valid, batch.values, torch.nan))
    assert torch.equal(model(garbage)[0], loss)
    two = replace(
        holed,
        values=batch.values[:1, :, [0, 2]],
        valid=valid[:1, :, [0, 2]],
        channel=batch.channel[:1, [0, 2]],
        key=batch.key[:1],
    )
    _, without = model(two)
    for name, score in without.items():
        torch.testing.assert_close(score[0], metrics[name][0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", ["multi", "single"])
def test_segments_with_nothing_to_score(segments, mode):
    model = objective(input_mode=mode).eval()
    batch = segments(25, 0, 500)
    loss, metrics = model(batch)
    assert metrics["masked_mse"].isnan().tolist() == [True, True, False]
    assert metrics["loss"].isnan().tolist() == [True, True, False]
    assert metrics["interpolation_mse"].isnan().tolist() == [True, True, False]
    assert metrics["unmasked_mse"].isnan().tolist() == [False, True, False]
    torch.testing.assert_close(loss, metrics["loss"][2] / 3)
    loss.backward()
    nothing, _ = model(segments(0, 25))
    assert nothing == 0
    nothing.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_spectra_of_whole_hidden_patches_are_scored(segments):
    model = objective(unmasked_loss_weight=0.25, spectral_loss_weight=2.0)
    batch = segments(500, 25)
    valid = batch.valid.clone()
    valid[0, 60, 1] = False
    batch = replace(batch, valid=valid)
    patches, masked = model.backbone.patches(batch), hidden(model, batch)
    loss, metrics = model(batch)
    tokens = model.backbone.encode_patches(
        patches.values.masked_fill(masked[..., None], 0.0), patches.present, patches.counts
    )
    power = torch.fft.rfft(patches.values[0], norm="ortho").abs().square()
    error = (model.spectral_head(tokens)[0] - (1 + power / 0.1**2).log() / 2).square()
    whole = patches.valid[0].all(-1)
    assert not whole[1, 2]
    assert whole.sum() == 59
    spectral, visible = error[whole & masked[0]].mean(), error[whole & ~masked[0]].mean()
    torch.testing.assert_close(metrics["spectral_mse"][0], spectral.detach(), atol=1e-5, rtol=1e-4)
    assert metrics["spectral_mse"][1].isnan()  # a segment of one patch has nothing hidden
    samples = metrics["masked_mse"][0] + 0.25 * metrics["unmasked_mse"][0]
    torch.testing.assert_close(loss, (samples + 2 * (spectral + 0.25 * visible)) / 2, atol=1e-5, rtol=1e-4)
    loss.backward()
    assert model.spectral_head.weight.grad.abs().sum() > 0


def test_single_mode_weighs_axes_alike(segments):
    batch = segments(500)
    valid = batch.valid.clone()
    valid[0, 200:, 2] = False
    batch = replace(batch, valid=valid)
    multi, single = objective().eval(), objective(input_mode="single").eval()
    single.load_state_dict(multi.state_dict())
    axes = [
        multi(
            replace(
                batch,
                values=batch.values[..., c : c + 1],
                valid=valid[..., c : c + 1],
                channel=batch.channel[:, c : c + 1],
            )
        )[0]
        for c in range(3)
    ]
    torch.testing.assert_close(single(batch)[0], sum(axes) / 3, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(multi(batch)[0], (axes[0] * 10 + axes[1] * 10 + axes[2] * 4) / 24, atol=1e-6, rtol=1e-5)


def test_hidden_samples_never_reach_the_model(segments):
    model = objective()
    batch = segments(1000, 250)
    before = model.reconstruct(batch)
    changed = replace(batch, values=torch.where(before.masked, batch.values + 7, batch.values))
    assert torch.equal(model.reconstruct(changed).prediction, before.prediction)
    seen = replace(batch, values=torch.where(before.masked, batch.values, batch.values + 7))
    assert not torch.equal(model.reconstruct(seen).prediction, before.prediction)


def test_gradient_comes_from_hidden_recorded_samples_only(segments):
    model = objective()
    batch = segments(240, 500)
    valid = batch.valid.clone()
    valid[:, ::7] = False  # a sample or more of every patch
    batch = replace(batch, valid=valid)
    outputs = []
    model.head.register_forward_hook(lambda _module, _input, output: outputs.append(output))
    loss, _ = model(batch)
    (gradient,) = torch.autograd.grad(loss, outputs, retain_graph=True)
    loss.backward()
    patches = model.backbone.patches(batch)
    scored = hidden(model, batch)[..., None] & patches.valid
    assert torch.equal(gradient != 0, scored)
    used = model.backbone.embedding.positions.grad.abs().sum(1) > 0
    assert used.tolist() == [True] * 20 + [False] * 20


def test_reconstruction_has_the_shape_of_the_batch(segments):
    batch = segments(260, 130)
    made = objective().reconstruct(batch)
    assert all(x.shape == (2, 260, 3) for x in (made.values, made.prediction, made.masked, made.valid))
    assert torch.equal(made.values, batch.values)
    assert torch.equal(made.valid, batch.valid)
    assert not (made.masked & ~made.valid).any()
    assert made.prediction.dtype == torch.float32


def test_bfloat16_loss_stays_near_and_is_float32(segments):
    model = objective(d_embedding=128, n_layers=4)
    batch = segments(1000, 250)
    exact, _ = model(batch)
    loss, metrics = model.bfloat16()(batch)
    assert loss.dtype == torch.float32
    assert metrics["loss"].dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
    loss.backward()
    assert model.head.weight.grad.isfinite().all()


def first_system_embedding(patches, embedding):
    """(M, 25) -> (M, d): a matrix, or two convolutions with the statistics of the batch."""
    weights = list(embedding.parameters())
    if len(weights) == 1:
        return patches @ weights[0].T
    x = patches[:, None]
    for kernel, scale, shift in (weights[:3], weights[3:]):
        x = F.conv1d(x, kernel, stride=2)
        x = F.relu(F.batch_norm(x, None, None, scale, shift, training=True))
    return x.mean(-1)


def first_system_loss(batch, model, masked):
    """The first system's loss, written down once more with torch's own encoder."""
    d, weight = model.backbone.d_embedding, model.unmasked_loss_weight
    layer = nn.TransformerEncoderLayer(d, d // 64, 4 * d, dropout=0.0, norm_first=True, batch_first=True)
    encoder = nn.TransformerEncoder(layer, len(model.backbone.layers), norm=nn.LayerNorm(d), enable_nested_tensor=False)
    with torch.no_grad():  # both list their parameters in the same order, but for the two norms of a layer
        for ours, theirs in zip(model.backbone.layers, encoder.layers, strict=True):
            attention, (wide, *_, narrow) = ours.attention, ours.feedforward
            mine = [*attention.parameters(), *wide.parameters(), *narrow.parameters()]
            mine += [*ours.norm_attention.parameters(), *ours.norm_feedforward.parameters()]
            for target, source in zip(theirs.parameters(), mine, strict=True):
                target.copy_(source)
    B, T, C = batch.values.shape
    x = torch.zeros(B, 1000, C)
    x[:, :T] = batch.values
    patches = x.transpose(1, 2).reshape(B * C, 40, 25)
    masked = masked.reshape(B * C, 40)
    embedding = model.backbone.embedding
    visible = patches * ~masked[..., None]
    tokens = first_system_embedding(visible.reshape(-1, 25), embedding.patch).view(B * C, 40, d) + embedding.positions
    error = (encoder(tokens) @ model.head.weight.T - patches) ** 2
    return error[masked].mean() + weight * error[~masked].mean()


@pytest.mark.parametrize("mode", ["multi", "single"])
@pytest.mark.parametrize("embedding_type", ["linear", "conv"])
def test_faithful_is_the_first_systems_loss(segments, embedding_type, mode):
    model = objective(
        faithful=True,
        embedding_type=embedding_type,
        unmasked_loss_weight=1e-2,
        n_layers=3,
        d_embedding=128,
        input_mode=mode,
    )
    batch = segments(250, 730, 500)
    masked = hidden(model, batch)
    assert (masked.sum(2) == 20).all()
    expected = first_system_loss(batch, model, masked)
    torch.testing.assert_close(model(batch)[0], expected, atol=1e-5, rtol=0)


def test_learns_a_sine_better_than_a_line_does(segments):
    # A tenth of the wave in a patch: a line across a hidden patch, or several, misses its bends.
    model = objective(patch_size=10, max_window_length=100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def waves(step):
        batch = segments(*[100] * 32, n_channels=1, seed=step)
        phase, period = batch.values[:, :1] * 9, 25 + 10 * batch.values[:, 1:2].clamp(-1, 1)
        t = torch.arange(100.0)[None, :, None]
        return replace(batch, values=torch.sin(phase + 2 * torch.pi * t / period))

    for step in range(250):
        optimizer.zero_grad()
        model(waves(step))[0].backward()
        optimizer.step()
    _, scores = model.eval()(waves(1000))
    assert scores["masked_mse"].mean() < 0.5 * scores["interpolation_mse"].mean()
    assert scores["zero_mse"].mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"masking_ratio": 0.0}, "objective.masking_ratio"),
        ({"masking_ratio": 1.0}, "objective.masking_ratio"),
        ({"masking_ratio": float("nan")}, "objective.masking_ratio"),
        ({"unmasked_loss_weight": -1.0}, "objective.unmasked_loss_weight"),
        ({"unmasked_loss_weight": float("nan")}, "objective.unmasked_loss_weight"),
        ({"spectral_loss_weight": -1.0}, "objective.spectral_loss_weight"),
        ({"spectral_loss_weight": float("inf")}, "objective.spectral_loss_weight"),
    ],
)
def test_a_value_out_of_range_is_named(arguments, key):
    with pytest.raises(ConfigError, match=key):
        objective(**arguments)
