"""Channels with embeddings of their own: whose is whose, and that nothing else changes."""

from dataclasses import replace

import pytest
import torch

from aar_dist.base.config import ClassSpec
from aar_dist.base.errors import ConfigError
from aar_dist.models.channels import with_channels
from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.masked import MaskedReconstruction
from aar_dist.training.footprint import describe

NAMES = ("acc.x", "acc.y", "ecg")
KINDS = ("linear", "conv", "spectral")
SMALL = {"d_embedding": 64, "n_layers": 1}


def encoder(kind, channels=NAMES, **arguments):
    return AAREncoder(**SMALL, embedding_type=kind, channels=list(channels), **arguments).eval()


def shared_of(model, channel):
    """A model with one embedding for all, whose weights are those of this channel."""
    weights = model.state_dict()
    wide = "embedding.patch.weight" in weights and weights["embedding.patch.weight"].shape[-1] > 25
    kind = "conv" if "embedding.patch.0_weight" in weights else "spectral" if wide else "linear"
    made = AAREncoder(**SMALL, embedding_type=kind)
    for own, shared in model.channel_parameters().items():
        weights[shared] = weights.pop(own)[model.channels.index(channel)]
    made.load_state_dict(weights)
    return made.eval()


@pytest.mark.parametrize("mode", ["multi", "single"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_channel_is_embedded_by_its_own_weights(segments, kind, mode):
    """Of segments of unequal length, in buckets."""
    model = encoder(kind, input_mode=mode)
    batch = replace(segments(1000, 250, 500), channels=NAMES)
    tokens = model.encode(batch).view(3, 3, 40, 64)
    for c, name in enumerate(NAMES):
        expected = shared_of(model, name).encode(batch).view(3, 3, 40, 64)
        torch.testing.assert_close(tokens[:, c], expected[:, c], atol=1e-5, rtol=0)
    assert not torch.allclose(tokens[:, 0], shared_of(model, "ecg").encode(batch).view(3, 3, 40, 64)[:, 0], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_found_by_name(segments, kind):
    """Columns in another order, segment by segment, and absent ones."""
    model = encoder(kind, rename={"ppg": "ecg"})
    batch = replace(segments(500, 500), channels=NAMES)
    expected = model.encode(batch).view(2, 3, 20, 64)
    order = torch.tensor([[2, 0, 1], [0, 1, 2]])
    mixed = replace(
        batch,
        channels=("ppg", "acc.y", "acc.x"),
        channel=torch.tensor([2, 1, 0])[order],
        values=batch.values.gather(2, order[:, None].expand(-1, 500, -1)),
    )
    tokens = model.encode(mixed).view(2, 3, 20, 64)
    for i in range(2):
        torch.testing.assert_close(tokens[i], expected[i, order[i]], atol=1e-5, rtol=0)
    absent = replace(
        mixed, channel=mixed.channel.masked_fill(order == 1, -1), valid=mixed.valid & (order != 1)[:, None]
    )
    without = model.encode(absent).view(2, 3, 20, 64)
    assert (without[order == 1] == 0).all()
    torch.testing.assert_close(without[order != 1], tokens[order != 1], atol=1e-5, rtol=0)


def test_a_channel_without_an_embedding_takes_no_part(segments):
    """As an absent one; a batch of nothing else is an error, unless it is told what they are."""
    model = encoder("linear")
    batch = replace(segments(100), channels=("acc.x", "gyr.x", "ecg"))
    tokens, valid = model.encode(batch).view(3, 4, 64), model.token_valid(batch).view(3, 4)
    assert valid.any(1).tolist() == [True, False, True]
    known = model.encode(replace(batch, channels=NAMES)).view(3, 4, 64)
    torch.testing.assert_close(tokens[[0, 2]], known[[0, 2]], atol=1e-5, rtol=0)
    strange = replace(batch, channels=("gyr.x", "gyr.y", "ppg.red"))
    with pytest.raises(ConfigError, match=r"acc\.x, acc\.y, ecg, and none for any of gyr\.x, gyr\.y, ppg\.red"):
        model.encode(strange)
    model.rename({"ppg.red": "ecg"})
    torch.testing.assert_close(model.encode(strange).view(3, 4, 64)[2], known[2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_channels_that_are_there(segments, kind):
    """And are zeros, not absent, for the others: every rank reduces alike."""
    objective = MaskedReconstruction(encoder(kind)).train()
    batch = segments(500, 1000)
    valid = batch.valid.clone()
    valid[:, :, 1] = False
    loss, _ = objective(replace(batch, valid=valid, channel=torch.tensor([[0, -1, 2]] * 2), channels=NAMES))
    loss.backward()
    for name in objective.backbone.channel_parameters():
        gradient = objective.backbone.get_parameter(name).grad
        assert (gradient[1] == 0).all(), name
        assert gradient[0].abs().sum() > 0, name
        assert gradient[2].abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_cost_is_that_of_one_embedding_for_all(kind):
    """Of the formula; and it can be traced without samples. What picks a sequence's matrix is a few per mille."""
    with torch.device("meta"):
        own = MaskedReconstruction(encoder(kind))
        one = MaskedReconstruction(AAREncoder(**SMALL, embedding_type=kind))
    told, plain = (describe(of, rates_hz=(50.0,))["segments"][0] for of in (own, one))
    assert [c.per_token for c in own.costs()][-2:] == [c.per_token for c in one.costs()][-2:]
    assert sum(c.per_token for c in own.costs()) == sum(c.per_token for c in one.costs())
    assert told["flops_forward"] == pytest.approx(plain["flops_forward"], rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"channels": []}, "must be names, each once"),
        ({"channels": ["a", "a"]}, "must be names, each once"),
        ({"channels": ["a"], "faithful": True}, "one embedding for all channels"),
        ({"per_channel": True}, "takes the channels from the stream"),
    ],
)
def test_bad_channels_name_their_key(arguments, said):
    with pytest.raises(ConfigError, match=said):
        AAREncoder(**arguments)


def test_the_stream_names_the_channels():
    spec = ClassSpec("AAREncoder", {"d_embedding": 64})
    stream = ("acc.x", "ecg.chest", "ppg.1", "ppg.2")
    assert with_channels(spec, stream) is spec
    rename = {"ppg.1": "ppg", "ppg.2": "ppg", "ppg.red": "ppg"}
    made = with_channels(replace(spec, init_args={"per_channel": True, "rename": rename}), stream).init_args
    assert made["channels"] == ["acc.x", "ecg.chest", "ppg"]
    assert made["rename"] == {"ppg.1": "ppg", "ppg.2": "ppg"}
    own = {"channels": ["ppg", "ecg.chest", "acc.x"], "rename": made["rename"]}
    assert with_channels(replace(spec, init_args=own), stream).init_args["channels"] == own["channels"]
    with pytest.raises(ConfigError, match=r"model.channels are ecg, but the stream has acc.x, ecg.chest"):
        with_channels(replace(spec, init_args={"channels": ["ecg"]}), stream)
    with pytest.raises(ConfigError, match=r"model.rename: the stream has no channel 'ppg.red'"):
        with_channels(replace(spec, init_args={"per_channel": True, "rename": rename}), stream, strict=True)
