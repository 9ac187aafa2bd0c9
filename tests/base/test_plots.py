"""Reconstruction pictures."""

import numpy as np
import pytest
from matplotlib.image import imread

from aar_dist.base.plots import reconstruction_figure, save_figure, spans


@pytest.fixture
def figure():
    values = np.sin(np.arange(100, dtype=np.float32) / 5)[None, :, None].repeat(2, 0).repeat(3, 2)
    masked, valid = np.zeros(values.shape, bool), np.ones(values.shape, bool)
    masked[:, 10:20], masked[:, 50:75] = True, True
    valid[1, 50:], valid[0, :, 2] = False, False
    masked &= valid
    return reconstruction_figure(
        values,
        values + 1,
        masked,
        valid,
        rate_hz=[10.0, 5.0],
        titles=["cow", "goat"],
        channels=["x", "y", "z"],
        unit="g",
    )


def test_axes_are_in_seconds_and_units(figure):
    cow, goat = figure.axes[0], figure.axes[3]
    assert cow.get_title(loc="left") == "cow"
    assert [axes.get_ylabel() for axes in figure.axes] == ["x [g]", "y [g]", "z [g]"] * 2
    assert figure.axes[5].get_xlabel() == "time [s]"
    assert cow.lines[0].get_xdata()[-1] == pytest.approx(9.9)
    assert goat.lines[0].get_xdata()[-1] == pytest.approx(9.8)  # 50 samples at 5 Hz, the padding left out


def test_prediction_is_drawn_where_the_model_was_blind(figure):
    recorded, predicted = (line.get_ydata() for line in figure.axes[0].lines)
    assert np.isfinite(predicted).sum() == 35
    np.testing.assert_allclose((predicted - recorded)[10:20], 1, rtol=1e-5)
    assert len(figure.axes[0].patches) == 2
    assert len(figure.axes[3].patches) == 1


def test_an_absent_channel_says_so(figure):
    assert [text.get_text() for text in figure.axes[2].texts] == ["no samples"]


def test_a_phone_shows_its_whole_width(figure):
    width, height = figure.get_size_inches()
    assert width == 5, "letters of 9 points are ten pixels high where 5 inches are 390 pixels wide"
    assert height > 5
    figure.canvas.draw()
    boxes = [axes.get_position(original=False) for axes in figure.axes]
    assert all(b.width > 0.7 * 1 for b in boxes)


def test_runs_of_true():
    assert spans(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert spans(np.zeros(3, bool)) == []


def test_saves_a_picture(figure, tmp_path):
    path = save_figure(figure, tmp_path / "new" / "picture.png")
    assert imread(path).std() > 0.05
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
    assert save_figure(figure, tmp_path / "picture.svg").read_text().lstrip().startswith("<?xml")
