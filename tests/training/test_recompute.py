"""Activation checkpointing changes memory and nothing else: alone to the bit, and on two ranks at every ZeRO stage."""

from pathlib import Path

import pytest
import torch
from launching import both_ranks

from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.masked import MaskedReconstruction
from aar_dist.training.sizes.memory import kept_for_backward
from aar_dist.training.sizes.recompute import recompute

TRIALS = ("0:0.3", "1:0", "2:0.3", "3:0.3", "3:0")
"""ZeRO stage and dropout. Without dropout torch leaves a layer before its last product, in the second pass."""


def masked(n_layers=3, **encoder) -> MaskedReconstruction:
    torch.manual_seed(3)
    return MaskedReconstruction(AAREncoder(d_embedding=64, n_layers=n_layers, transformer_dropout=0.5, **encoder))


def trained(objective, batch, *, autocast=False):
    """Loss, gradients, and the next random number."""
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, _ = objective(batch)
    loss.backward()
    return loss, {name: p.grad for name, p in objective.named_parameters()}, torch.rand(1)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("encoder", [{}, {"embedding_type": "conv", "faithful": True}, {"patch_seconds": 1.0}], ids=str)
def test_loss_and_gradients_are_the_same_to_the_bit_with_dropout(segments, encoder, autocast):
    batch = segments(1000, 250, 60)
    plain, changed = masked(**encoder), masked(**encoder)
    assert recompute(changed) == 3
    assert list(changed.state_dict()) == list(plain.state_dict())
    (loss, gradients, drawn), (loss_again, gradients_again, drawn_again) = (
        trained(m, batch, autocast=autocast) for m in (plain, changed)
    )
    assert torch.equal(loss, loss_again)
    assert torch.equal(drawn, drawn_again)
    assert all(torch.equal(gradients[name], gradients_again[name]) for name in gradients)
    # Statistics of a batch are counted once, since the embedding is computed once.
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), changed.buffers(), strict=True))


def test_what_is_kept_is_the_input_of_each_layer(segments):
    batch = segments(*[1000] * 8)
    kept = [kept_for_backward(made(masked(n)), batch) for made in (lambda m: m, changed) for n in (2, 3)]
    of_a_layer, of_a_changed_layer = kept[1] - kept[0], kept[3] - kept[2]
    tokens = 8 * 3 * 40
    assert of_a_changed_layer == pytest.approx(4 * 64 * tokens, rel=0.05)
    assert of_a_layer > 10 * of_a_changed_layer


def changed(objective):
    recompute(objective)
    return objective


def test_without_gradients_a_layer_is_computed_once(segments):
    objective, calls = masked(), []
    objective.backbone.layers[0].norm_attention.register_forward_hook(lambda *_: calls.append(1))
    recompute(objective)
    with torch.no_grad():
        objective(segments(100))
    assert len(calls) == 1
    objective(segments(100))[0].backward()
    assert len(calls) == 3


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> list[dict]:
    """What both ranks report of each stage."""
    out = tmp_path_factory.mktemp("recompute")
    return both_ranks(Path(__file__).with_name("recompute_script.py"), out, *TRIALS)


@pytest.mark.launch
@pytest.mark.parametrize("trial", TRIALS)
def test_every_stage_trains_and_resumes_as_without(said, trial):
    for rank in said:
        told = rank[trial]
        assert told["losses"]["checkpointed"] == told["losses"]["plain"] == told["losses"]["resumed"]
        assert len(told["losses"]["plain"]) == 8
        assert told["weights_alike"] == [True, True, True, False]  # the last are those of the checkpoint halfway
    assert said[0][trial]["losses"] != said[1][trial]["losses"]
