"""Interpolation between what is visible, against a plain loop."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aar_dist.objectives.references import interpolate


@given(st.lists(st.tuples(st.floats(-100, 100, width=32), st.booleans()), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_equals_numpys_interpolation(samples):
    values, known = np.array([v for v, _ in samples], np.float32), np.array([k for _, k in samples])
    line = interpolate(torch.tensor(values), torch.tensor(known)).numpy()
    places = np.arange(len(values))
    expected = np.interp(places, places[known], values[known]) if known.any() else np.zeros(len(values))
    np.testing.assert_allclose(line, expected, atol=1e-4)


def test_line_from_the_last_sample_before_to_the_first_after():
    values = torch.tensor([[0.0, 1.0, 9.0, 9.0, 9.0, 5.0, 5.0]])
    known = torch.tensor([[True, True, False, False, False, True, False]])
    assert interpolate(values, known).tolist() == [[0, 1, 2, 3, 4, 5, 5]]


def test_references_are_scored_on_the_hidden_samples(segments):
    from aar_dist.models.transformer import AAREncoder
    from aar_dist.objectives.masked import MaskedReconstruction

    model = MaskedReconstruction(AAREncoder(d_embedding=64, n_layers=1)).eval()
    batch = segments(500, 250)
    _, metrics = model(batch)
    asked = model.references(batch)
    made = model.reconstruct(batch)
    for name in ("zero_mse", "interpolation_mse"):
        assert torch.equal(asked[name], metrics[name])
    known = made.valid & ~made.masked
    for i in range(2):
        hidden = made.masked[i]
        assert torch.isclose(metrics["zero_mse"][i], batch.values[i][hidden].square().mean(), rtol=1e-5)
        line = interpolate(batch.values[i].T, known[i].T).T
        assert torch.isclose(
            metrics["interpolation_mse"][i], (batch.values[i] - line)[hidden].square().mean(), rtol=1e-5
        )
        assert torch.isclose(
            metrics["masked_mse"][i], (batch.values[i] - made.prediction[i])[hidden].square().mean(), rtol=1e-5
        )
    assert "zero_mse" not in model.train()(batch)[1]
