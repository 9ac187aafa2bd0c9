"""A plan as a picture: bytes fetched, bytes cached, what batches are made of."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aar_dist.base.cli import human_bytes
from aar_dist.stream.plan.config import PlanConfig
from aar_dist.stream.plan.model import Plan

MANY = 12  # data sets, from which their names find no room
MEAN, MOST, LIMIT, FAIR = "#3b6ea5", "#9fbfdf", "#d1495b", "#e6e6e6"


def figure(plan: Plan, config: PlanConfig) -> Figure:
    """Three panels over the steps played."""
    fig = Figure(figsize=(9, 8.4), layout="constrained")
    FigureCanvasAgg(fig)
    fetched, cached, made = fig.subplots(3, 1)
    _lines(fetched, plan, "fetched", "fetched by a node so far")
    _lines(cached, plan, "cached", "held in a node's cache")
    limit = config.cluster.cache_bytes
    for value, name, style in ((plan.caching.least, "least that runs", ":"), (limit, "cache", "-")):
        if value is not None:
            cached.axhline(value, color=LIMIT, ls=style, lw=1.2, label=f"{name}: {human_bytes(value)}")
    cached.legend(frameon=False, fontsize=8)
    for axes in (fetched, cached):
        edges = np.arange(plan.epochs_played + 1) * plan.steps_per_epoch
        for edge in edges[1:-1]:
            axes.axvline(edge, color="#bbbbbb", lw=0.8, zorder=0)
        axes.set_xlim(0, max(1, plan.timeline["step"][-1]))
        axes.set_xlabel("step")
    _composition(made, plan)
    return fig


def _lines(axes: Axes, plan: Plan, name: str, title: str) -> None:
    step = plan.timeline["step"]
    mark = "o" if len(step) == 1 else None  # a line through one step is none
    axes.plot(step, plan.timeline[f"{name}_most"], color=MOST, lw=2.5, label="node with the most", marker=mark)
    axes.plot(step, plan.timeline[f"{name}_mean"], color=MEAN, lw=1.4, label="mean of the nodes", marker=mark)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylim(bottom=0, top=1.1 * max(1, *plan.timeline[f"{name}_most"]))
    axes.yaxis.set_major_formatter(lambda value, _: human_bytes(value))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _composition(axes: Axes, plan: Plan) -> None:
    """Share of each data set in the batches looked at, from the least to the most, beside what fair draws give."""
    shares, expected = np.array(plan.quality.shares), np.array(plan.quality.expected)
    order = np.argsort(-expected, kind="stable")
    shares, expected = 100 * shares[:, order], 100 * expected[order]
    x = np.arange(len(expected))
    fair = 2 * np.sqrt(expected * (100 - expected) / plan.batch_size)
    axes.bar(x, 2 * fair, bottom=expected - fair, width=0.8, color=FAIR, label="two deviations of fair draws")
    axes.vlines(
        x, shares.min(0), shares.max(0), color=MEAN, lw=2 if len(x) > MANY else 4, label="batches, least to most"
    )
    axes.hlines(expected, x - 0.4, x + 0.4, color=LIMIT, lw=1.5, zorder=3, label="the epoch")
    axes.set_title("share of each data set in a batch [%]", loc="left", fontsize=10)
    names = [list(plan.data_sets)[i] for i in order]
    axes.set_xticks(x if len(x) <= MANY else [], names if len(x) <= MANY else [], fontsize=8)
    axes.set_xlabel("" if len(x) <= MANY else f"{len(x)} data sets, the largest first")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
