"""Pictures, drawn without a display and without pyplot's global state.

B segments, T samples, C channels
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from aar_dist.base.storage import write_bytes

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

RECORDED, PREDICTED, HIDDEN = "#4d4d4d", "#d1495b", "#f4d9a6"
WIDTH, LANE = 5.0, 0.85
"""Of the reconstructions and of one channel in them [inches]."""
CLOSE = {"columnspacing": 1.0, "handlelength": 1.2}
LEGEND = (
    Patch(color=HIDDEN, label="hidden from the model"),
    Line2D([], [], color=RECORDED, label="recorded"),
    Line2D([], [], color=PREDICTED, label="predicted"),
)


def reconstruction_figure(
    values: FloatArray,
    prediction: FloatArray,
    masked: BoolArray,
    valid: BoolArray,
    *,
    rate_hz: Sequence[float],
    titles: Sequence[str],
    channels: Sequence[str],
    unit: str = "g",
) -> Figure:
    """Original against reconstruction: the segments below one another, each with a lane for every channel, so that a
    phone shows the whole width.

    Spans hidden from the model are shaded, and the prediction is drawn there alone: elsewhere the model saw the
    answer. Samples that are not valid are left out.

    Args:
        values, prediction: (B, T, C) in ``unit``.
        masked, valid: (B, T, C).
        rate_hz: (B,) samples a second.
        titles: (B,) printed above the segments.
        channels: (C,) printed beside the lanes.
        unit: of the values.
    """
    n_segments, _, n_channels = values.shape
    layout = ConstrainedLayoutEngine(h_pad=0.02, hspace=0.03)
    figure = Figure(figsize=(WIDTH, 0.5 + n_segments * (0.6 + LANE * n_channels)), layout=layout)
    FigureCanvasAgg(figure)
    for i, part in enumerate(figure.subfigures(n_segments, 1, squeeze=False)[:, 0]):
        length = 1 + np.flatnonzero(valid[i].any(1)).max(initial=0)
        time_s = np.arange(length) / rate_hz[i]
        lanes = part.subplots(n_channels, 1, sharex=True, squeeze=False)[:, 0]
        for j, axes in enumerate(lanes):
            at = (i, slice(length), j)
            _draw_segment(axes, time_s, values[at], prediction[at], masked[at], valid[at])
            axes.set_ylabel(f"{channels[j]} [{unit}]".strip())
        lanes[0].set_title(titles[i], loc="left", fontsize=10)
        lanes[-1].set_xlabel("time [s]")
    figure.legend(handles=LEGEND, loc="outside upper center", ncols=3, frameon=False, fontsize=9, **CLOSE)
    return figure


def _draw_segment(
    axes: Axes, time_s: FloatArray, values: FloatArray, prediction: FloatArray, masked: BoolArray, valid: BoolArray
) -> None:
    step = time_s[1] - time_s[0] if len(time_s) > 1 else 1.0
    if not valid.any():
        axes.text(0.5, 0.5, "no samples", transform=axes.transAxes, ha="center", va="center", fontsize=9)
        axes.set_yticks([])
    for start, stop in spans(masked):
        axes.axvspan(time_s[start] - step / 2, time_s[stop - 1] + step / 2, color=HIDDEN, lw=0)
    axes.plot(time_s, np.where(valid, values, np.nan), color=RECORDED, lw=0.9)
    axes.plot(time_s, np.where(masked, prediction, np.nan), color=PREDICTED, lw=1.2)
    axes.margins(x=0.01)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.label.set_fontsize(9)


def spans(flags: BoolArray) -> list[tuple[int, int]]:
    """Runs of True as (start, stop), stop exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def save_figure(figure: Figure, path: Path | str) -> Path:
    """Write the figure in the format of the path's suffix (png, svg, pdf); whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix.lstrip(".") or "png", dpi=150)
    return write_bytes(path, buffer.getvalue())


def plain(text: str) -> str:
    """The text itself; between dollars matplotlib would read a formula, and fail where there is none."""
    return text.replace("$", r"\$")
