"""Timelines: lanes of coloured runs."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from aar_dist.base.plots import save_figure
from aar_dist.base.timelines import NOTHING, Lane, class_colours, timeline_figure


def lane(name: str = "cow 1", runs: tuple[tuple[float, float, int], ...] = ((0, 60, 0), (60, 90, 2), (90, 100, -1))):
    start, stop, label = (np.array(column) for column in zip(*runs, strict=True))
    return Lane(name, start, stop, label)


def in_dichromacy(colour: str, kept: tuple[float, float, float]) -> np.ndarray:
    """(yellow-blue, lightness): what is left of a colour where red and green are one."""
    red, green, blue = np.array(to_rgb(colour)) ** 2.2
    yellow = kept[0] * red + kept[1] * green
    return np.cbrt([yellow, blue, 0.3 * red + 0.6 * green + 0.1 * blue])


def test_colours_are_stable_and_differ():
    many = class_colours(30)
    assert class_colours(5) == many[:5]
    assert len(set(many)) == 30
    assert all(len(colour) == 7 and colour.startswith("#") for colour in many)


@pytest.mark.parametrize("kept", [(0.3, 0.7, 0.0), (0.1, 0.9, 0.0)])
def test_twelve_classes_differ_without_red_and_green(kept):
    seen = np.array([in_dichromacy(colour, kept) for colour in class_colours(12)])
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2)[np.triu_indices(12, 1)]
    assert apart.min() > 0.07


def test_runs_stand_at_their_time_in_their_colour():
    figure = timeline_figure([lane(), lane("cow 2", ((0, 30, 1),))], ["rest", "walk", "run"], title="herd")
    axes = figure.axes[0]
    first, second = axes.collections
    assert [p.get_extents().intervalx.tolist() for p in first.get_paths()] == [[0, 60], [60, 90], [90, 100]]
    colours = class_colours(3)
    expected = [to_rgb(c) for c in (colours[0], colours[2], NOTHING)]
    np.testing.assert_allclose(first.get_facecolors()[:, :3], expected)
    assert second.get_paths()[0].get_extents().intervaly.tolist() == [0.6, 1.4]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cow 1", "cow 2"]
    assert axes.get_title(loc="left") == "herd"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["rest", "walk", "run", "no label"]


def test_names_are_no_formulas(tmp_path):
    figure = timeline_figure([lane("$x_$")], ["$a^$", "b", "c"], title="$\\frac$")
    save_figure(figure, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


@pytest.mark.parametrize(("stop", "unit"), [(100, "s"), (179, "s"), (180, "min"), (10799, "min"), (10800, "h")])
def test_the_unit_follows_the_length(stop, unit):
    axes = timeline_figure([lane(runs=((0, stop, 0),))], ["rest"]).axes[0]
    assert axes.get_xlabel() == f"time [{unit}]"
    assert axes.get_xlim()[1] == pytest.approx(stop / {"s": 1, "min": 60, "h": 3600}[unit])


@pytest.mark.parametrize("n_lanes", [0, 1, 300])
def test_any_number_of_lanes_is_drawn(n_lanes, tmp_path):
    lanes = [lane(f"cow {i}") for i in range(n_lanes)]
    figure = timeline_figure(
        [*lanes, Lane("empty", *(np.zeros(0),) * 2, np.zeros(0, int))], [f"c{i}" for i in range(15)]
    )
    picture = imread(save_figure(figure, tmp_path / "t.png"))
    assert picture.shape[0] < 10_000
    assert n_lanes == 0 or picture[..., :3].std() > 0.01


def test_the_axis_may_be_a_clock(tmp_path):
    noon = 12 * 3600.0
    axes = timeline_figure([lane(runs=((noon, noon + 1500, 0),))], ["rest"], clock=True).axes[0]
    assert axes.get_xlabel() == "time of day"
    assert axes.get_xlim() == pytest.approx((noon, noon + 1500))
    told = axes.xaxis.get_major_formatter()
    assert [told(s) for s in axes.xaxis.get_major_locator().tick_values(noon, noon + 900)][1:4] == [
        "12:00",
        "12:05",
        "12:10",
    ]
    axes = timeline_figure([lane(runs=((noon, noon + 30, 0),))], ["rest"], clock=True).axes[0]
    assert axes.xaxis.get_major_formatter()(noon + 61) == "12:01:01"
