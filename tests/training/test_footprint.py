"""What a model costs, against formulas and against the real thing."""

import json

import pytest
import torch

from aar_dist.base.config import ClassSpec
from aar_dist.base.errors import ConfigError
from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.masked import MaskedReconstruction
from aar_dist.training.config import PretrainConfig, TrainConfig
from aar_dist.training.footprint import blank_batch, describe, describe_config, render
from aar_dist.training.sizes.memory import kept_for_backward


def masked(**encoder):
    return MaskedReconstruction(AAREncoder(**encoder))


def flops(d, n_layers, patch_size, n_axes, n_patches):
    """Forward, and forward + backward, of the linear embedding's model; 2 for a multiply-add.

    A layer: 12 d^2 weights a token and two products with every other token. Backward costs twice the forward,
    but nothing asks for the gradient of the samples.
    """
    tokens = n_axes * n_patches
    embedding = head = 2 * patch_size * d * tokens
    layers = n_layers * tokens * (24 * d * d + 4 * n_patches * d)
    forward = embedding + layers + head
    return forward, 3 * forward - embedding


@pytest.mark.parametrize(("d", "n_layers"), [(128, 4), (256, 6)])
def test_flops_follow_the_formula(d, n_layers):
    with torch.device("meta"):
        model = masked(d_embedding=d, n_layers=n_layers)
    slow, fast = describe(model, rates_hz=(25.0, 100.0))["segments"]
    assert (slow["samples"], slow["tokens"]) == (250, 30)
    assert (fast["samples"], fast["tokens"]) == (1000, 120)
    for segment, n_patches in ((slow, 10), (fast, 40)):
        expected = flops(d, n_layers, 25, 3, n_patches)
        assert (segment["flops_forward"], segment["flops_forward_backward"]) == expected


@pytest.mark.parametrize("rate_hz", [10.0, 25.0, 33.35, 100.0])
def test_patches_of_seconds_cost_the_same_at_any_rate(rate_hz):
    description = describe(masked(patch_seconds=1.0), rates_hz=(rate_hz,))
    (segment,) = description["segments"]
    assert segment["tokens"] == 30
    assert (segment["flops_forward"], segment["flops_forward_backward"]) == flops(128, 4, 25, 3, 10)


def test_what_is_cut_off_is_not_counted():
    slow, fast = describe(masked(patch_seconds=1.0), max_window_length=500)["segments"]
    assert (slow["samples"], slow["tokens"]) == (250, 30)
    assert (fast["samples"], fast["tokens"]) == (500, 15)


def test_parameters_by_part():
    parameters = describe(masked())["parameters"]
    assert parameters["backbone"] == 801_664
    assert parameters["heads"] == 3_200
    assert parameters["total"] == 804_864 == sum(parameters["parts"].values())


def test_memory_at_each_stage():
    n, world = 804_864, 4
    rows = describe(masked(), world_size=world, micro_batch_size=8)["memory"]["rows"]
    states = {
        (r["precision"], r["zero_stage"]): (r["parameters"], r["gradients"], r["optimizer"])
        for r in rows
        if r["offload"] == "none"
    }
    assert states["fp32", 0] == (4 * n, 4 * n, 8 * n)
    assert states["fp32", 3] == (n, n, 3 * n)
    assert states["bf16", 0] == (2 * n, 2 * n, 12 * n)
    assert states["bf16", 1] == (2 * n, 2 * n, 3 * n)
    assert states["bf16", 2] == (2 * n, n // 2, 3 * n)
    assert states["bf16", 3] == (n // 2, n // 2, 3 * n)
    for row in rows:
        assert row["total"] == sum(row[c] for c in ("parameters", "gradients", "optimizer", "activations"))


@pytest.mark.parametrize(
    "encoder", [{}, {"embedding_type": "spectral"}, {"embedding_type": "conv"}, {"patch_seconds": 0.5}], ids=str
)
def test_activations_are_those_of_a_real_pass(encoder, monkeypatch):
    """With torch's own dropout and attention, which all devices but the CPU use."""
    monkeypatch.setattr("aar_dist.models.dropout._ours", lambda x: False)
    monkeypatch.setattr("aar_dist.models.layers.attention", torch.nn.functional.scaled_dot_product_attention)
    model = masked(d_embedding=64, n_layers=2, **encoder)
    real = kept_for_backward(
        model, blank_batch(4, 50.0, duration_s=10.0, max_window_length=1000, n_channels=3, device="cpu")
    )
    rows = describe(model, rates_hz=(50.0, 25.0), micro_batch_size=4)["memory"]["rows"]
    assert rows[0]["activations"] == pytest.approx(real, rel=0.01)
    assert not next(model.parameters()).is_meta  # the model itself is left where it was


def test_tables_name_the_figures_and_json_takes_them():
    description = describe(masked())
    assert json.loads(json.dumps(description)) == description
    text = render(description)
    for figure in ("801,664", "804,864", "1000 x 3", "0.200 GFLOP", "0.600 GFLOP", "bf16"):
        assert figure in text
    assert "…" not in text


def test_a_configuration_is_described_as_it_would_run():
    spec = ClassSpec(
        "aar_dist.models.transformer.AAREncoder", {"d_embedding": 256, "n_layers": 6, "embedding_type": "conv"}
    )
    description = describe_config(PretrainConfig(model=spec, train=TrainConfig(batch_size=64)), world_size=4)
    assert description["parameters"]["backbone"] == 4_914_560
    assert description["memory"]["micro_batch_size"] == 16
    with pytest.raises(ConfigError, match=r"train\.batch_size 64"):
        describe_config(PretrainConfig(train=TrainConfig(batch_size=64)), world_size=3)
