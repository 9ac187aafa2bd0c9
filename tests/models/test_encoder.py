"""The encoder: its size, its equality to torch's own, and what must not reach it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from aar_dist.base.errors import ConfigError
from aar_dist.models import dropout
from aar_dist.models.transformer import AAREncoder


def n_parameters(module):
    return sum(p.numel() for p in module.parameters())


def torch_encoder(d_embedding, n_layers, dropout=0.1):
    layer = nn.TransformerEncoderLayer(
        d_embedding, d_embedding // 64, 4 * d_embedding, dropout=dropout, norm_first=True, batch_first=True
    )
    return nn.TransformerEncoder(layer, n_layers, norm=nn.LayerNorm(d_embedding), enable_nested_tensor=False)


def copy_to_torch(model, reference):
    """Our weights into torch's encoder."""
    names = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj.": "attention.out.",
        "linear1.": "feedforward.0.",
        "linear2.": "feedforward.3.",
        "norm1.": "norm_attention.",
        "norm2.": "norm_feedforward.",
    }
    ours, state = model.state_dict(), {}
    for name in reference.state_dict():
        own = name
        for theirs, mine in names.items():
            own = own.replace(theirs, mine)
        state[name] = ours[own]
    reference.load_state_dict(state)
    return reference


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 801_664),
        ({"d_embedding": 256, "n_layers": 6}, 4_755_712),
        ({"d_embedding": 256, "n_layers": 6, "embedding_type": "conv"}, 4_914_560),
        ({"d_embedding": 256, "n_layers": 6, "embedding_type": "conv", "faithful": True}, 4_914_560),
    ],
)
def test_parameter_counts_of_the_first_system(arguments, count):
    with torch.device("meta"):
        model = AAREncoder(**arguments)
    assert n_parameters(model) == count
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize(("d_embedding", "n_layers"), [(64, 2), (128, 4)])
def test_equals_torchs_encoder(segments, d_embedding, n_layers):
    model = AAREncoder(d_embedding=d_embedding, n_layers=n_layers).eval()
    reference = copy_to_torch(model, torch_encoder(d_embedding, n_layers)).eval()
    assert n_parameters(reference) + n_parameters(model.embedding) == n_parameters(model)
    batch = segments(1000, 1000)
    tokens = (
        batch.values.transpose(1, 2).reshape(6, 40, 25) @ model.embedding.patch.weight.T + model.embedding.positions
    )
    expected = reference(tokens).reshape(2, 120, d_embedding)
    torch.testing.assert_close(model.encode(batch), expected, atol=1e-5, rtol=0)


def test_drops_where_torchs_encoder_drops(segments, monkeypatch):
    # With one sequence both draw in the same order (torch's holds several the other way round in memory); torch's draws
    # are given to both, since ours are cheaper ones.
    monkeypatch.setattr(dropout, "_ours", lambda x: False)
    model = AAREncoder()
    reference = copy_to_torch(model, torch_encoder(128, 4))
    batch = segments(1000, n_channels=1)
    tokens = batch.values.view(1, 40, 25) @ model.embedding.patch.weight.T + model.embedding.positions
    torch.manual_seed(5)
    expected = reference(tokens)
    torch.manual_seed(5)
    torch.testing.assert_close(model.encode(batch), expected, atol=1e-5, rtol=0)


def test_equals_torchs_encoder_with_key_padding_mask(segments):
    model = AAREncoder().eval()
    reference = copy_to_torch(model, torch_encoder(128, 4)).eval()
    batch = segments(1000, 250, 500, 430)
    present = model.token_valid(batch).reshape(12, 40)
    tokens = (
        batch.values.transpose(1, 2).reshape(12, 40, 25) @ model.embedding.patch.weight.T + model.embedding.positions
    )
    expected = reference(tokens, src_key_padding_mask=~present) * present[..., None]
    torch.testing.assert_close(model.encode(batch), expected.reshape(4, 120, 128), atol=1e-5, rtol=0)


def test_weights_start_as_torchs_do():
    ours, theirs = AAREncoder(d_embedding=256, n_layers=1), torch_encoder(256, 1)
    reference = torch_encoder(256, 1)
    drawn = reference.state_dict()
    copy_to_torch(ours, theirs)
    for name, mine in theirs.state_dict().items():
        if drawn[name].std() == 0:
            assert torch.equal(mine, drawn[name]), name
        else:
            assert mine.std().item() == pytest.approx(drawn[name].std().item(), rel=0.12), name
            assert mine.abs().max().item() == pytest.approx(drawn[name].abs().max().item(), rel=0.05), name
    positions = AAREncoder().embedding.positions
    assert positions.abs().max() <= 0.02
    assert positions.std().item() == pytest.approx(0.04 / 12**0.5, rel=0.03)


@pytest.mark.parametrize("embedding_type", ["linear", "conv", "spectral"])
def test_a_segment_does_not_feel_its_padding_or_its_neighbours(segments, embedding_type):
    model = AAREncoder(d_embedding=64, n_layers=2, embedding_type=embedding_type).eval()
    mixed = segments(250, 1000, 500)
    for i, length in enumerate((250, 1000, 500)):
        alone = replace(
            mixed,
            values=mixed.values[i : i + 1, :length],
            valid=mixed.valid[i : i + 1, :length],
            key=mixed.key[i : i + 1],
        )
        n = length // 25
        together = model.encode(mixed).view(3, 3, 40, 64)[i, :, :n]
        torch.testing.assert_close(together, model.encode(alone).view(3, n, 64), atol=1e-5, rtol=0)
        assert (model.encode(mixed).view(3, 3, 40, 64)[i, :, n:] == 0).all()


def test_absent_channels_and_gaps_are_not_attended_to(segments):
    model = AAREncoder(d_embedding=64, n_layers=2).eval()
    whole = segments(500, 500)
    valid = whole.valid.clone()
    valid[0, :, 1] = False  # an absent channel
    valid[1, 100:200, 2] = False  # a gap of four patches
    holed = replace(whole, valid=valid)
    garbage = replace(holed, values=torch.where(valid, whole.values, torch.nan))
    tokens = model.encode(garbage)
    assert torch.equal(tokens, model.encode(holed))
    tokens, present = tokens.view(2, 3, 20, 64), model.token_valid(garbage).view(2, 3, 20)
    torch.testing.assert_close(tokens[0, [0, 2]], model.encode(whole).view(2, 3, 20, 64)[0, [0, 2]], atol=1e-5, rtol=0)
    assert not present[0, 1].any()
    assert present[1, 2].tolist() == [True] * 4 + [False] * 4 + [True] * 12
    assert (tokens[~present] == 0).all()


def test_a_batch_with_nothing_recorded_gives_zeros_and_finite_gradients(segments):
    model = AAREncoder(d_embedding=64, n_layers=1)
    batch = segments(100)
    tokens = model.encode(replace(batch, valid=torch.zeros_like(batch.valid)))
    assert (tokens == 0).all()
    tokens.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_last_patch_partly_recorded_counts(segments):
    model = AAREncoder(d_embedding=64, n_layers=1)
    patches = model.patches(segments(60))
    assert patches.values.shape == (1, 3, 3, 25)
    assert patches.valid[0, 0].sum(1).tolist() == [25, 25, 10]
    assert AAREncoder(d_embedding=64, patch_size=300).patches(segments(1000)).values.shape == (1, 3, 3, 300)


def test_faithful_pads_to_the_window_and_attends_to_padding(segments):
    faithful = AAREncoder(d_embedding=64, n_layers=2, faithful=True).eval()
    masked = AAREncoder(d_embedding=64, n_layers=2).eval()
    masked.load_state_dict(faithful.state_dict())
    batch = segments(250)
    assert faithful.encode(batch).shape == (1, 120, 64)
    assert faithful.token_valid(batch).all()
    difference = faithful.encode(batch).view(3, 40, 64)[:, :10] - masked.encode(batch).view(3, 10, 64)
    assert difference.abs().max() > 1e-3
    first, second = (layer.state_dict() for layer in faithful.layers)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_batch_statistics_only_where_faithful():
    kinds = {
        faithful: {type(m) for m in AAREncoder(embedding_type="conv", faithful=faithful).modules()}
        for faithful in (True, False)
    }
    assert nn.BatchNorm1d in kinds[True]
    assert nn.BatchNorm1d not in kinds[False]
    assert nn.GroupNorm in kinds[False]


def test_conv_embedding_sees_how_large_a_patch_is():
    embed = AAREncoder(embedding_type="conv").embedding.patch
    patch = torch.randn(8, 25)
    large, small = embed(patch), embed(0.1 * patch)
    assert small.norm() < 0.5 * large.norm()
    assert torch.equal(embed(torch.zeros(1, 25)), torch.zeros(1, 128))


def test_bfloat16_stays_near(segments):
    model = AAREncoder().eval()
    batch = segments(1000, 250)
    exact = model.encode(batch)
    rounded = model.bfloat16().encode(batch)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.1, rtol=0.1)


def test_blocks_from_input_to_output():
    model = AAREncoder(d_embedding=64, n_layers=3)
    embedding, *layers = model.blocks()
    assert embedding is model.embedding
    assert all(a is b for a, b in zip(layers, model.layers, strict=True))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"d_embedding": 100}, "model.d_embedding"),
        ({"d_embedding": 32}, "model.d_embedding"),
        ({"d_embedding": 0}, "model.d_embedding"),
        ({"n_layers": 0}, "model.n_layers"),
        ({"transformer_dropout": 1.0}, "model.transformer_dropout"),
        ({"patch_size": 1001}, "model.patch_size"),
        ({"patch_size": 0}, "model.patch_size"),
        ({"patch_size": 12, "embedding_type": "conv"}, "model.patch_size"),
        ({"embedding_type": "cnn"}, "model.embedding_type"),
    ],
)
def test_a_value_out_of_range_is_named(arguments, key):
    with pytest.raises(ConfigError, match=key):
        AAREncoder(**arguments)


def test_the_shortest_patch_of_the_conv_embedding_works(segments):
    assert AAREncoder(d_embedding=64, patch_size=13, embedding_type="conv").encode(segments(130)).shape == (1, 30, 64)


def test_a_segment_longer_than_the_window_is_named(segments):
    with pytest.raises(ConfigError, match=r"model\.max_window_length is 500 but a segment has 600"):
        AAREncoder(max_window_length=500).encode(segments(600))
