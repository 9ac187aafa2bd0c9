"""Operations by formula, against those that torch counts in a traced pass; tokens against those that are cut."""

import pytest
import torch

from aar_dist.models.cost import forward, training
from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.classification import Classification
from aar_dist.objectives.masked import MaskedReconstruction
from aar_dist.training.footprint import describe

ENCODERS = (
    {},
    {"d_embedding": 64, "n_layers": 1, "patch_size": 40},
    {"embedding_type": "conv", "n_layers": 2},
    {"embedding_type": "spectral", "n_layers": 1},
    {"patch_seconds": 0.5, "n_layers": 2},
)


@pytest.mark.parametrize("spectral", [0.0, 1.0])
@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
@pytest.mark.parametrize("trained_from", [0, 1, 2])
def test_the_formula_is_what_torch_counts(encoder, trained_from, spectral):
    """Also where the first blocks are frozen: they need no backward at all."""
    with torch.device("meta"):
        objective = MaskedReconstruction(AAREncoder(**encoder), spectral_loss_weight=spectral)
    for block in objective.backbone.blocks()[:trained_from]:
        block.requires_grad_(False)
    costs = objective.costs()
    for told in describe(objective, rates_hz=(25.0, 100.0))["segments"]:
        sums = told["tokens"], told["tokens"] ** 2 / 3  # three sequences of equal length
        assert forward(costs).of(*sums) == told["flops_forward"]
        assert training(costs).of(*sums) == told["flops_forward_backward"]


def test_a_head_on_a_few_tokens_hardly_counts(segments):
    objective = Classification(AAREncoder(), n_classes=5)
    assert objective.costs()[-1].module is objective.backbone.layers[-1]


@pytest.mark.parametrize("encoder", [{}, {"patch_size": 40}, {"faithful": True}], ids=str)
def test_tokens_are_counted_as_they_are_cut(segments, encoder):
    batch = segments(1000, 250, 990, 1, pad_to=1000)
    batch.valid[0, 100:300, 1] = False
    batch.valid[1, :, 2] = False
    batch.valid[2, ::2] = False
    present = AAREncoder(**encoder | {"faithful": False}).patches(batch).present
    assert torch.equal(AAREncoder(**encoder).n_tokens(batch), present.sum(2).double())  # padding never counts


@pytest.mark.parametrize("patch_seconds", [0.3, 0.5, 1.0])
def test_tokens_of_seconds(segments, patch_seconds):
    batch = segments(1000, 210, 60, pad_to=1200)
    backbone = AAREncoder(patch_seconds=patch_seconds, patch_size=25)
    assert torch.equal(backbone.n_tokens(batch), backbone.patches(batch).present.sum(2).double())
