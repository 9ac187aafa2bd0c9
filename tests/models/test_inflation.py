"""A model of two channels that takes five, by the guide's formula, whatever the order of their names."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aar_dist.base.errors import CheckpointError
from aar_dist.base.hashing import hash_np, normal_np, word
from aar_dist.models.inflation import NOISE, Inflation, adapted, inflate, inflation_of
from aar_dist.models.transformer import AAREncoder

GUIDE = ("acc.x", "acc.y", "acc.z", "ppg", "ecg")
SMALL = {"d_embedding": 64, "n_layers": 1}


def test_two_channels_to_five_as_the_guide_says():
    """ACC (0-2), PPG (3), ECG (4): W'[3] = W[0], W'[4] = W[1], W'[0..2] = mean over the stored + 0.01 N(0, 1)."""
    stored = torch.randn(2, 128, 25)
    made = inflate(stored, torch.zeros(5, 128, 25), Inflation(("ppg", "ecg"), GUIDE), parameter="w", seed=1)
    assert torch.equal(made[3], stored[0])
    assert torch.equal(made[4], stored[1])
    noise = (made[:3] - stored.mean(0)) / 0.01
    assert NOISE == 0.01
    assert noise.mean(dim=(1, 2)).abs().max() < 0.1  # 3,200 draws: five standard errors
    assert (noise.std(dim=(1, 2)) - 1).abs().max() < 0.07
    assert torch.corrcoef(noise.flatten(1)).triu(1).abs().max() < 0.1


@given(
    stored=st.permutations(["ppg", "ecg", "resp"]), wanted=st.permutations([*GUIDE, "gyr"]), seed=st.integers(0, 2**32)
)
def test_the_order_of_channels_changes_nothing(stored, wanted, seed):
    by_name = {name: torch.from_numpy(normal_np(hash_np(word(name), np.arange(6)))).float() for name in stored}
    own = torch.stack([by_name[name] for name in stored])
    made = inflate(own, torch.zeros(6, 6), Inflation(tuple(stored), tuple(wanted)), parameter="w", seed=seed)
    straight = inflate(
        torch.stack([by_name[name] for name in sorted(by_name)]),
        torch.zeros(2, 6),
        Inflation(tuple(sorted(by_name)), ("acc.x", "ppg")),
        parameter="w",
        seed=seed,
    )
    assert torch.equal(made[wanted.index("acc.x")], straight[0])
    assert torch.equal(made[wanted.index("ppg")], straight[1])


def test_noise_is_of_its_channel_its_parameter_and_its_seed():
    def start(channel="acc.x", parameter="w", seed=1):
        plan = Inflation(("ppg",), (channel,))
        return inflate(torch.zeros(1, 4), torch.zeros(1, 4), plan, parameter=parameter, seed=seed)

    assert torch.equal(start(), start())
    for other in (start(channel="acc.y"), start(parameter="v"), start(seed=2)):
        assert not torch.equal(start(), other)


def test_random_keeps_what_was_drawn_and_still_transfers():
    stored, fresh = torch.randn(2, 8), torch.randn(5, 8)
    made = inflate(stored, fresh, Inflation(("ppg", "ecg"), GUIDE, "random"), parameter="w", seed=1)
    assert torch.equal(made, torch.cat([fresh[:3], stored]))


@pytest.mark.parametrize("kind", ["linear", "conv", "spectral"])
@pytest.mark.parametrize("mode", ["multi", "single"])
def test_a_model_is_inflated_whole(segments, kind, mode):
    """Its other weights are the stored ones, and the tokens of the channels both know stay as they were."""
    arguments = {**SMALL, "embedding_type": kind, "input_mode": mode}
    old = AAREncoder(**arguments, channels=["ppg", "ecg"]).eval()
    new = AAREncoder(**arguments, channels=list(GUIDE)).eval()
    plan = inflation_of({"channels": ["ppg", "ecg"]}, {"channels": list(GUIDE)})
    new.load_state_dict(adapted(old.state_dict(), new, plan, seed=1))
    assert [name for name, p in old.state_dict().items() if p.shape != new.state_dict()[name].shape] == list(
        new.channel_parameters()
    )
    batch = segments(500, n_channels=5)
    five = new.encode(batch).view(5, 20, 64)
    ours = {"values": batch.values[..., 3:], "valid": batch.valid[..., 3:], "channel": batch.channel[:, :2]}
    two = old.encode(replace(batch, **ours)).view(2, 20, 64)
    torch.testing.assert_close(five[3:], two, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_one_embedding_for_all_becomes_one_for_each(segments, kind):
    """And at first the model says what it said before."""
    old = AAREncoder(**SMALL, embedding_type=kind).eval()
    new = AAREncoder(**SMALL, embedding_type=kind, channels=["acc.x", "acc.y", "gyr.x"]).eval()
    plan = inflation_of({}, {"channels": ["acc.x", "acc.y", "gyr.x"]})
    new.load_state_dict(adapted(old.state_dict(), new, plan, seed=1))
    batch = segments(500, 250)
    torch.testing.assert_close(new.encode(batch), old.encode(batch), atol=1e-5, rtol=0)
    assert str(plan) == "acc.x, acc.y, gyr.x from the embedding of all"


def test_what_is_said_of_it():
    plan = inflation_of({"channels": ["ppg", "ecg"]}, {"channels": ["acc", "ppg"]})
    assert str(plan) == "ppg transferred; acc from the mean of ppg, ecg; ecg left behind"
    assert plan.told() == {"how": "mean", "transferred": ["ppg"], "new": ["acc"], "left": ["ecg"]}
    assert inflation_of({"channels": ["ppg"]}, {"channels": ["ppg"]}) is None
    assert inflation_of({"channels": ["ppg"]}, {}) is None
    swapped = inflation_of({"channels": ["ppg", "ecg"]}, {"channels": ["ecg", "ppg"]})
    assert torch.equal(inflate(torch.eye(2), torch.zeros(2, 2), swapped, parameter="w", seed=0), torch.eye(2).flip(0))


def test_more_than_channels_may_not_differ():
    with pytest.raises(CheckpointError, match=r"w is \(1, 4\) in the stored model, and \(1, 5\) is wanted"):
        inflate(torch.zeros(1, 4), torch.zeros(1, 5), Inflation(("a",), ("a",)), parameter="w", seed=0)
