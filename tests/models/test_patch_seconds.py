"""Patches of seconds: the same movement makes the same patches, whatever the rate it was recorded at."""

from dataclasses import replace

import pytest
import torch

from aar_dist.base.errors import ConfigError
from aar_dist.models.packing import bucketed
from aar_dist.models.transformer import AAREncoder
from aar_dist.stream.batch import SegmentBatch

RATES = (20.0, 25.0, 50.0, 100.0)


def encoder(**arguments):
    return AAREncoder(**({"d_embedding": 64, "n_layers": 2, "patch_seconds": 1.0} | arguments)).eval()


def waves(segments, *rates_hz):
    """10 s of the same slow waves, recorded at these rates."""
    batch = segments(*(round(10 * rate) for rate in rates_hz))
    time_s = torch.arange(batch.values.shape[1])[None, :, None] / batch.rate_hz[:, None, None]
    values = torch.sin(2 * torch.pi * (0.7 * time_s + torch.tensor([0.1, 0.4, 0.8])))
    return replace(batch, values=values * batch.valid, key=batch.key[:1].expand(len(rates_hz)))


def one(batch, i):
    """A segment by itself, without padding."""
    n = round(10 * batch.rate_hz[i].item())
    small = {name: getattr(batch, name)[i : i + 1] for name in ("rate_hz", "dataset", "channel", "key")}
    return replace(batch, values=batch.values[i : i + 1, :n], valid=batch.valid[i : i + 1, :n], **small)


def test_any_rate_makes_the_same_patches_and_nearly_the_same_tokens(segments):
    model = encoder()
    batch = waves(segments, *RATES)
    patches = model.patches(batch)
    assert patches.values.shape == (4, 3, 10, 25)
    assert patches.valid.all()
    held = patches.values.flatten(2)[..., :-1]  # but for the end of the slowest recording, which is held
    torch.testing.assert_close(held, held[1:2].expand_as(held), atol=0.012, rtol=0)
    tokens = model.encode(batch)
    torch.testing.assert_close(tokens, tokens[1:2].expand_as(tokens), atol=0.05, rtol=0)
    assert (tokens[1] - tokens[1].mean(0)).abs().max() > 1


def test_at_its_own_rate_a_segment_is_cut_as_ever(segments):
    seconds, samples = encoder(), encoder(patch_seconds=None)
    samples.load_state_dict(seconds.state_dict())
    batch = segments(250, 250, 130)
    batch = replace(batch, rate_hz=torch.full((3,), 25.0), valid=batch.valid & (torch.rand(batch.valid.shape) > 0.05))
    ours, theirs = seconds.patches(batch), samples.patches(batch)
    assert torch.equal(ours.valid, theirs.valid)
    torch.testing.assert_close(ours.values, theirs.values, atol=1e-7, rtol=0)
    torch.testing.assert_close(seconds.encode(batch), samples.encode(batch), atol=1e-5, rtol=0)


def test_a_segment_does_not_feel_its_padding_or_its_neighbours(segments):
    model = encoder()
    mixed = segments(250, 1000, 100, 126)
    valid = mixed.valid.clone()
    valid[0, 80:84, 1], valid[1, 700:] = False, False
    mixed = replace(mixed, valid=valid)
    patches, tokens = model.patches(mixed), model.encode(mixed).view(4, 3, 10, 64)
    for i in range(4):
        alone = model.patches(one(mixed, i))
        n = alone.values.shape[2]
        assert torch.equal(alone.values[0], patches.values[i, :, :n])
        assert torch.equal(alone.valid[0], patches.valid[i, :, :n])
        assert not patches.present[i, :, n:].any()
        torch.testing.assert_close(model.encode(one(mixed, i)).view(3, n, 64), tokens[i, :, :n], atol=1e-5, rtol=0)


def test_gaps_absent_channels_and_garbage_stay_out(segments):
    model = encoder()
    batch = segments(1000, 200)
    valid = batch.valid.clone()
    valid[0, :, 1], valid[0, 290:610, 2], valid[1, 100:101, 0] = False, False, False
    holed = replace(batch, valid=valid)
    garbage = replace(holed, values=torch.where(valid, batch.values, torch.nan))
    assert torch.equal(model.encode(garbage), model.encode(holed))
    patches = model.patches(garbage)
    assert not patches.present[0, 1].any()
    assert patches.present[0, 2].tolist() == [True] * 3 + [False] * 3 + [True] * 4
    assert (~patches.valid[1, 0]).flatten().nonzero()[:, 0].tolist() == [124, 125, 126]
    assert patches.valid[1, 1:].all()
    assert (patches.values[~patches.valid] == 0).all()


def test_mixed_rates_leave_nothing_to_bucket(segments):
    layout = bucketed(encoder().patches(waves(segments, *RATES)).present.flatten(0, 1))
    assert [(b.count, b.length, b.mask) for b in layout.buckets] == [(12, 10, None)]
    assert layout.index is None


def test_lengths_that_are_told_give_what_lengths_that_are_read_give(segments):
    model = encoder()
    batch = segments(250, 1000, 126)
    told = replace(batch, duration_s=(10.0, 10.0, 10.0))
    assert torch.equal(model.encode(told), model.encode(batch))


def test_lengths_that_are_told_are_not_read():
    with torch.device("meta"):
        batch = SegmentBatch(
            values=torch.zeros(2, 1000, 3),
            valid=torch.ones(2, 1000, 3, dtype=torch.bool),
            rate_hz=torch.tensor([25.0, 100.0]),
            dataset=torch.zeros(2, dtype=torch.int64),
            channel=torch.zeros(2, 3, dtype=torch.int64),
            key=torch.zeros(2, dtype=torch.int64),
            duration_s=(10.0, 7.5),
        )
    # A device without memory fails whoever asks it for a value.
    assert encoder().to("meta").encode(batch).shape == (2, 30, 64)


def test_size_does_not_change():
    with torch.device("meta"):
        model = AAREncoder(patch_seconds=0.5)
    assert sum(p.numel() for p in model.parameters()) == 801_664


def test_faithful_cuts_the_whole_window(segments):
    model = encoder(faithful=True)
    assert model.encode(segments(250, 1000)).shape == (2, 120, 64)
    assert model.token_valid(segments(250)).all()


@pytest.mark.parametrize("told", [True, False])
def test_more_patches_than_positions_is_named(segments, told):
    batch = segments(250, 1000)
    batch = replace(batch, duration_s=(10.0, 10.0) if told else None)
    assert encoder(patch_seconds=0.25).patches(batch).values.shape[2] == 40
    expected = (
        r"model\.patch_seconds 0\.2 makes 50 patches of a segment of 10 s, but model\.max_window_length 1000 // "
        r"model\.patch_size 25 leaves room for 40; set model\.patch_seconds to 0\.25 or more, or "
        r"data\.max_window_length to 1250 or more"
    )
    with pytest.raises(ConfigError, match=expected):
        encoder(patch_seconds=0.2).encode(batch)
    encoder(patch_seconds=0.2, max_window_length=1250).encode(batch)


def test_a_duration_that_floats_miss_fits():
    assert 2.1 / 0.3 > 7
    assert encoder(patch_seconds=0.3, max_window_length=7 * 25).patching.of_duration(2.1) == 7


def test_samples_are_no_limit_where_patches_are_seconds(segments):
    assert encoder(max_window_length=250).patches(segments(2000)).values.shape == (1, 3, 10, 25)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_value_out_of_range_is_named(seconds):
    with pytest.raises(ConfigError, match=r"model\.patch_seconds"):
        encoder(patch_seconds=seconds)
