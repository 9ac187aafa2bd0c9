"""Pooling against plain NumPy, class weights, what counts for nothing, and regression in units of its target."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from aar_dist.base.errors import ConfigError
from aar_dist.models.backbone import Backbone
from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.classification import Classification, focal, inverse_frequency
from aar_dist.objectives.pooling import PooledHead, average, grouped_tokens, last, moments
from aar_dist.objectives.regression import Regression


def encoder() -> AAREncoder:
    return AAREncoder(d_embedding=64, n_layers=1, patch_size=5, max_window_length=50)


def labelled(batch, label):
    return type(batch)(**{**vars(batch), "label": label})


def test_pooling_is_that_of_numpy():
    rng = np.random.default_rng(3)
    tokens, valid = rng.normal(size=(7, 3, 6, 4)).astype("f4"), rng.random((7, 3, 6)) < 0.5
    valid[0, 0] = False
    valid[1, 1] = [True, False, False, False, False, False]
    valid[2, 2] = True
    wanted_last, wanted_mean, wanted_std = (np.zeros((7, 3, 4), "f4") for _ in range(3))
    for b in range(7):
        for c in range(3):
            places = np.flatnonzero(valid[b, c])
            if len(places):
                wanted_last[b, c] = tokens[b, c, places[-1]]
                wanted_mean[b, c] = tokens[b, c, places].mean(axis=0)
                wanted_std[b, c] = tokens[b, c, places].std(axis=0)
    given = torch.from_numpy(tokens), torch.from_numpy(valid)
    assert np.array_equal(last(*given).numpy(), wanted_last)
    assert np.allclose(average(*given).numpy(), wanted_mean, atol=1e-6)
    both = moments(*given).numpy()
    assert np.allclose(both, np.concatenate([wanted_mean, wanted_std], axis=-1), atol=2e-3)
    assert not both[0, 0].any(), "nothing was recorded there"


def test_tokens_that_are_all_alike_leave_a_gradient():
    tokens = torch.ones(2, 1, 3, 4, requires_grad=True)
    moments(tokens, torch.ones(2, 1, 3, dtype=torch.bool)).sum().backward()
    assert torch.isfinite(tokens.grad).all()


@pytest.mark.parametrize("pooling", ["last", "average"])
def test_the_head_sees_the_chosen_token_of_each_channel_side_by_side(segments, pooling):
    backbone = encoder().eval()
    model = Classification(backbone, n_classes=4, pooling=pooling).eval()
    batch = segments(50, 23, 7)
    tokens = backbone.encode(batch).view(3, 3, -1, 64)
    pooled = []
    for i, n_patches in enumerate((10, 5, 2)):
        mine = tokens[i, :, :n_patches]
        pooled.append((mine[:, -1] if pooling == "last" else mine.mean(1)).reshape(-1))
    logits = torch.stack(pooled) @ model.head.linear.weight.T + model.head.linear.bias
    assert torch.allclose(model.predict(batch), logits.softmax(1), atol=1e-6)
    assert torch.allclose(model.predict(batch).sum(1), torch.ones(3))


@pytest.mark.parametrize("pooling", ["last", "average", "moments"])
def test_padding_changes_nothing(segments, pooling):
    model = Classification(encoder(), n_classes=3, pooling=pooling).eval()
    assert torch.allclose(model.predict(segments(20, 30)), model.predict(segments(20, 30, pad_to=50)), atol=1e-6)


def test_absent_channels_give_zeros_and_too_many_are_refused(segments):
    model = Classification(encoder(), n_classes=3, n_channels=3).eval()
    three = segments(20, 20)
    three.values[..., 2], three.valid[..., 2] = 0.0, False
    two = type(three)(**{**vars(three), **{k: getattr(three, k)[..., :2] for k in ("values", "valid", "channel")}})
    assert torch.allclose(model.predict(three), model.predict(two), atol=1e-6)
    with pytest.raises(ConfigError, match=r"trained on 3 channels and a segment has 4; choose the sensors"):
        model.predict(segments(20, n_channels=4))


def test_dropout_of_the_head_is_the_one_asked_for():
    assert Classification(encoder(), n_classes=2).head.dropout.p == 0.5
    assert Classification(encoder(), n_classes=2, head_dropout=0.1).head.dropout.p == 0.1


class WithToken(Backbone):
    """Tokens that are their own place; the first stands for the whole segment."""

    d_embedding, cls_token = 2, 0

    def encode(self, batch):
        return torch.arange(4.0)[None, :, None].expand(len(batch), 4, 2)

    def token_valid(self, batch):
        return torch.tensor([[True, True, True, False]]).expand(len(batch), 4)

    def blocks(self):
        return []


@pytest.mark.parametrize(("pooling", "value"), [("cls", 0.0), ("last", 2.0), ("average", 1.5)])
def test_a_token_for_the_whole_segment(segments, pooling, value):
    backbone = WithToken()
    head = PooledHead(backbone, n_channels=3, n_outputs=1, pooling=pooling, dropout=0.0)
    assert head.pool(*grouped_tokens(backbone, segments(20))).tolist() == [[[value, value]]]
    assert head.linear.in_features == 2
    wide = PooledHead(backbone, n_channels=3, n_outputs=1, pooling="moments", dropout=0.0)
    assert wide(*grouped_tokens(backbone, segments(20))).shape == (1, 1)
    assert wide.linear.in_features == 4


def test_a_backbone_without_such_a_token_is_named():
    with pytest.raises(ConfigError, match="AAREncoder has no token for the whole segment; use last, average"):
        Classification(encoder(), n_classes=2, pooling="cls")


def test_the_loss_is_the_mean_of_weighted_cross_entropies(segments):
    model = Classification(encoder(), n_classes=3, class_weights=[0.5, 2.0, 0.0], head_dropout=0.0).eval()
    batch = labelled(segments(20, 30, 40, 50), torch.tensor([0, 1, 2, -1]))
    loss, metrics = model(batch)
    log_p = model.predict(batch).log()
    each = torch.stack([-0.5 * log_p[0, 0], -2.0 * log_p[1, 1], 0.0 * log_p[2, 2]])
    assert torch.allclose(metrics["loss"][:3], each, atol=1e-5)
    assert torch.allclose(loss, each.sum() / 4, atol=1e-5)
    assert metrics["loss"][3].isnan()
    assert metrics["accuracy"][3].isnan()
    assert metrics["accuracy"][:3].tolist() == (log_p.argmax(1)[:3] == torch.arange(3)).float().tolist()


def test_inverse_frequency():
    weights = inverse_frequency([6, 3, 0, 1])
    assert weights[2] == 0
    shares = [w * n for w, n in zip(weights, [6, 3, 0, 1], strict=True)]
    assert shares == pytest.approx([10 / 3, 10 / 3, 0, 10 / 3])


def test_regression_is_in_units_of_the_target(segments):
    model = Regression(encoder(), target_mean=70.0, target_std=10.0, head_dropout=0.0).eval()
    batch = labelled(segments(20, 30, 40), torch.tensor([65.0, 90.0, torch.nan]))
    loss, metrics = model(batch)
    error = model.predict(batch)[:2] - batch.label[:2]
    assert torch.allclose(metrics["mae"][:2], error.abs(), atol=1e-4)
    assert torch.allclose(loss, F.mse_loss(error, torch.zeros(2), reduction="sum") / 100 / 3, atol=1e-5)
    assert metrics["mae"][2].isnan()
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n_classes": 1}, "objective.n_classes must be 2 or more"),
        ({"n_classes": 3, "class_weights": [1.0]}, "1 weights for 3 classes"),
        ({"n_classes": 2, "class_weights": [1.0, -1.0]}, "must be 0 or more"),
        ({"n_classes": 2, "head_dropout": 1.0}, r"objective.head_dropout must lie in \[0, 1\)"),
        ({"n_classes": 2, "n_channels": 0}, "objective.n_channels must be 1 or more"),
    ],
)
def test_values_out_of_range_name_their_key(arguments, said):
    with pytest.raises(ConfigError, match=said):
        Classification(encoder(), **arguments)


def test_focal_loss_is_that_of_its_paper_and_plain_at_zero(segments):
    batch = labelled(segments(20, 25, 30, 35), torch.tensor([0, 1, 2, -1]))
    losses = {}
    for gamma in (0.0, 0.5, 2.0):
        torch.manual_seed(0)
        model = Classification(encoder(), n_classes=3, class_weights=[1.0, 2.0, 0.5], focal_gamma=gamma).eval()
        loss, metrics = model(batch)
        p = model.predict(batch).double()[torch.arange(3), batch.label[:3]]
        wanted = torch.tensor([1.0, 2.0, 0.5]) * (1 - p) ** gamma * -p.log()
        assert torch.allclose(metrics["loss"][:3].double(), wanted, rtol=1e-4)
        assert torch.allclose(loss.double(), wanted.sum() / 4, rtol=1e-4)
        loss.backward()
        assert all(q.grad is None or q.grad.isfinite().all() for q in model.parameters())
        losses[gamma] = loss.item()
    assert losses[0.0] > losses[0.5] > losses[2.0]
    with pytest.raises(ConfigError, match=r"focal_gamma must be 0 or more, got -1"):
        Classification(encoder(), n_classes=3, focal_gamma=-1.0)


def test_a_segment_that_is_right_for_sure_has_a_finite_slope():
    for gamma in (0.5, 1.0, 2.0):
        sure = torch.zeros(3, requires_grad=True)
        (sure * focal(sure, gamma)).sum().backward()
        assert sure.grad.isfinite().all()
