"""What an animal did, drawn as a lane of colours over time.

runs of one animal or day -> Lane(name, start_s, stop_s, label) -> timeline_figure(lanes, classes) -> Figure
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from aar_dist.base.plots import plain

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.integer]

# The first eight keep apart for every common colour blindness (the order of M. Okabe and K. Ito, 2008, with grey for
# their black); the others differ from them in lightness.
PALETTE = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#6f6f6f",
    "#332288", "#882255", "#a6d8a8", "#5c3a1e",
)  # fmt: skip
NOTHING, NOTHING_NAME = "#ececec", "no label"
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
LANE_INCHES, LARGEST_INCHES, WIDTH_INCHES = 0.3, 60.0, 10.0
CLOCK_STEPS = (1, 5, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10800)
LONG_ENOUGH = 3.0  # a unit is used from three of it on: 2 min are better told as 120 s


@dataclass(frozen=True)
class Lane:
    """One row of the picture; n runs, which do not overlap."""

    name: str
    """Stands in front of the lane."""
    start_s: FloatArray
    """(n,) on the lane's own clock."""
    stop_s: FloatArray
    label: IntArray
    """(n,) class; -1 none, drawn in light grey. Time without a run stays white."""


def class_colours(n: int) -> list[str]:
    """A colour ``#rrggbb`` for each of n classes; a class keeps its colour whatever the number of the others.

    Twelve colours; beyond these they come again, each time halfway nearer to white.
    """
    return [_lightened(PALETTE[i % len(PALETTE)], i // len(PALETTE)) for i in range(n)]


def timeline_figure(
    lanes: Sequence[Lane],
    classes: Sequence[str],
    *,
    title: str = "",
    clock: bool = False,
) -> Figure:
    """A lane for each animal, or each of its days, from top to bottom; a colour for each class.

    Args:
        lanes: drawn on one time axis, from the earliest run to the end of the last.
        classes: names of the labels 0, 1, …
        title: above the lanes.
        clock: the lanes count from midnight; the axis is a clock. Otherwise it takes minutes from three minutes on and
            hours from three hours on.
    """
    height = min(LARGEST_INCHES, 1.4 + LANE_INCHES * max(1, len(lanes)) + 0.2 * _legend_rows(classes))
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    unit = "s" if clock else _unit(lanes)
    colours = [*class_colours(len(classes)), NOTHING]  # label -1 is the last
    for place, lane in enumerate(lanes):
        _draw_lane(axes, place, lane, colours, SECONDS[unit])
    _finish_axes(axes, lanes, unit)
    if clock:
        _clock_ticks(axes, *_extent(lanes))
    if title:
        axes.set_title(plain(title), loc="left", fontsize=10)
    handles = [Patch(color=colour, label=plain(name)) for colour, name in zip(colours, classes, strict=False)]
    if any((np.asarray(lane.label) < 0).any() for lane in lanes):
        handles.append(Patch(color=NOTHING, label=NOTHING_NAME))
    if handles:
        figure.legend(
            handles=handles, loc="outside lower left", ncols=_legend_columns(classes), frameon=False, fontsize=8
        )
    return figure


def _draw_lane(axes: Axes, place: int, lane: Lane, colours: Sequence[str], unit_s: float) -> None:
    """All runs of a lane as one collection of rectangles (n, 4 corners, 2)."""
    start, stop = (np.asarray(x, np.float64) / unit_s for x in (lane.start_s, lane.stop_s))
    low, high = np.full(len(start), place - 0.4), np.full(len(start), place + 0.4)
    corners = np.stack(
        [np.stack(pair, axis=-1) for pair in ((start, low), (stop, low), (stop, high), (start, high))], axis=1
    )
    # Without antialiasing neighbours meet without a bright seam.
    axes.add_collection(
        PolyCollection(list(corners), facecolors=[colours[i] for i in lane.label], linewidths=0, antialiased=False),
        autolim=False,
    )


def _finish_axes(axes: Axes, lanes: Sequence[Lane], unit: str) -> None:
    first, last = _extent(lanes)
    axes.set_xlim(first / SECONDS[unit], last / SECONDS[unit])
    axes.set_ylim(max(1, len(lanes)) - 0.4, -0.6)
    size = min(9.0, 72 * 0.8 * LARGEST_INCHES / max(1, len(lanes)))
    axes.set_yticks(range(len(lanes)), [plain(lane.name) for lane in lanes], fontsize=size)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(f"time [{unit}]", fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _clock_ticks(axes: Axes, first_s: float, last_s: float) -> None:
    step = next((s for s in CLOCK_STEPS if last_s - first_s <= 8 * s), CLOCK_STEPS[-1])
    form = "{:02.0f}:{:02.0f}:{:02.0f}" if step < 60 else "{:02.0f}:{:02.0f}"
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(lambda s, _: form.format(s // 3600, s % 3600 // 60, s % 60))
    axes.set_xlabel("time of day", fontsize=9)


def _extent(lanes: Sequence[Lane]) -> tuple[float, float]:
    first = min((float(np.min(lane.start_s)) for lane in lanes if len(lane.start_s)), default=0.0)
    last = max((float(np.max(lane.stop_s)) for lane in lanes if len(lane.stop_s)), default=1.0)
    return first, max(first + 1e-9, last)


def _unit(lanes: Sequence[Lane]) -> str:
    first, last = _extent(lanes)
    return next((u for u in ("h", "min") if last - first >= LONG_ENOUGH * SECONDS[u]), "s")


def _legend_columns(classes: Sequence[str]) -> int:
    """As many as fit beside one another, by the longest name."""
    widest = max((len(name) for name in (*classes, NOTHING_NAME)), default=1)
    return max(1, int(WIDTH_INCHES / (0.55 + 0.075 * widest)))


def _legend_rows(classes: Sequence[str]) -> int:
    return ceil((len(classes) + 1) / _legend_columns(classes))


def _lightened(colour: str, times: int) -> str:
    return to_hex(1 - (1 - np.array(to_rgb(colour))) / 2**times)
