"""A plan as a picture: bytes fetched, bytes cached, what batches are made of."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aar_dist.base.cli import human_bytes
from aar_dist.stream.plan.config import PlanConfig
from aar_dist.stream.plan.model import Plan

NAMED = 8
MEAN, MOST, LIMIT = "#3b6ea5", "#9fbfdf", "#d1495b"
COLOURS = ("#3b6ea5", "#e0a030", "#5a9367", "#d1495b", "#7d5ba6", "#4d9de0", "#a0522d", "#888888", "#dddddd")


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
    axes.plot(step, plan.timeline[f"{name}_most"], color=MOST, lw=2.5, label="node with the most")
    axes.plot(step, plan.timeline[f"{name}_mean"], color=MEAN, lw=1.4, label="mean of the nodes")
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: human_bytes(value))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _composition(axes: Axes, plan: Plan) -> None:
    """Shares of the data sets in the batches looked at; at the right end those of the epoch."""
    shares, expected, names = np.array(plan.quality.shares), np.array(plan.quality.expected), list(plan.data_sets)
    order = np.argsort(-expected, kind="stable")
    groups = [[i] for i in order[:NAMED]] + ([list(order[NAMED:])] if len(order) > NAMED else [])
    x = np.append(np.arange(len(shares)), len(shares) + 1.5)
    bottom = np.zeros(len(x))
    for group, colour in zip(groups, COLOURS, strict=False):
        height = np.append(shares[:, group].sum(1), expected[group].sum())
        label = names[group[0]] if len(group) == 1 and len(groups) <= NAMED else f"{len(group)} others"
        label = names[group[0]] if len(group) == 1 else label
        axes.bar(x, height, bottom=bottom, color=colour, width=[0.9] * len(shares) + [1.6], label=label)
        bottom += height
    axes.set_title("data sets in batches spread over the epoch; last bar: the epoch", loc="left", fontsize=10)
    axes.set_xticks([])
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
