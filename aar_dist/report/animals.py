"""Held-out animals in time: what was labelled above what the model said.

predictions of the test windows -> each subject's windows in order, pauses closed -> two lanes
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from aar_dist.base.hashing import hash_np, word
from aar_dist.base.timelines import Lane, class_colours
from aar_dist.recordings.names import natural
from aar_dist.report.charts import Line, Panel, line_panel
from aar_dist.report.predicted import Table
from aar_dist.report.svg import Scale, dots, path, picture

MOST_WINDOWS = 4000
"""Of one animal; the rest of a longer one is left out, and that is told."""
MOST_PANELS = 12
"""Subjects of a target that are drawn."""


@dataclass(frozen=True)
class Animal:
    """The two lanes of one subject."""

    name: str
    svg: Markup
    shown_s: float
    """Labelled time that is drawn [s]."""
    whole_s: float
    right: float
    """Share of its windows that were told right."""


def animals(said: Table, classes: Sequence[str], subjects: Sequence[str]) -> list[Animal]:
    """One for each of these subjects that was tested."""
    tested = set(said["subject"].tolist())
    return [_animal(name, _of(said, name), classes) for name in subjects if name in tested]


def _of(said: Table, subject: str) -> Table:
    rows = np.flatnonzero(said["subject"] == subject)
    names, of = np.unique(said["recording"][rows], return_inverse=True)
    place = np.argsort(sorted(range(len(names)), key=lambda k: natural(str(names[k]))))
    order = np.lexsort((said["start_s"][rows], place[of]))
    return {name: column[rows[order]] for name, column in said.items()}


def _animal(name: str, of: Table, classes: Sequence[str]) -> Animal:
    right = float((of["y_true"] == of["y_pred"]).mean())
    start, stop = closed_up(of)
    whole = float((stop - start).sum())
    start, stop = closed_up({key: column[:MOST_WINDOWS] for key, column in of.items()})
    lanes = [
        Lane(what, start, stop, of[key][:MOST_WINDOWS]) for what, key in (("label", "y_true"), ("model", "y_pred"))
    ]
    alt = f"{name}: {100 * right:.0f} % of {len(of['y_true'])} windows told right"
    return Animal(name, lanes_svg(lanes, classes, alt), float((stop - start).sum()), whole, right)


def closed_up(of: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Starts and stops on a clock whose long pauses are cut to a narrow gap; so is the step to the next recording. A
    window ends where the next begins, so that no time counts twice where they overlap."""
    start, stop = of["start_s"].astype(np.float64), of["stop_s"].astype(np.float64)
    pause = start[1:] - stop[:-1]
    gap = 0.006 * float((stop - start).sum())
    new = of["recording"][1:] != of["recording"][:-1]
    step = np.where(new, gap, np.minimum(pause, gap))  # below 0 where windows overlap
    begins = np.concatenate(([0.0], np.cumsum((stop - start)[:-1] + step)))
    return begins, np.minimum(begins + (stop - start), np.append(begins[1:], np.inf))


def lanes_svg(lanes: Sequence[Lane], classes: Sequence[str], alt: str) -> Markup:
    """The lanes below one another, each class one path."""
    end = max(float(lane.stop_s[-1]) for lane in lanes)
    height, parts = 100 / len(lanes), []
    for place, lane in enumerate(lanes):
        runs = _runs(lane)
        for k, colour in enumerate(class_colours(len(classes))):
            boxes = [
                f"M{100 * a / end:.2f} {place * height + 4:g}H{100 * b / end:.2f}v{height - 8:g}H{100 * a / end:.2f}z"
                for a, b, label in runs
                if label == k
            ]
            if boxes:
                parts.append(path("".join(boxes), "box", f"{lane.name}: {classes[k]}", colour))
    return picture(parts, alt, "lanes")


def _runs(lane: Lane) -> list[tuple[float, float, int]]:
    """Neighbours of one label as one."""
    runs: list[tuple[float, float, int]] = []
    for a, b, label in zip(lane.start_s, lane.stop_s, lane.label, strict=True):
        if runs and runs[-1][2] == label and a - runs[-1][1] < 1e-6:
            runs[-1] = (runs[-1][0], float(b), int(label))
        else:
            runs.append((float(a), float(b), int(label)))
    return runs


def target_panels(said: Table, subjects: Sequence[str]) -> list[Panel]:
    """For a target: what was measured and what was said, of each subject in time."""
    panels = []
    tested = set(said["subject"].tolist())
    for name in [name for name in subjects if name in tested][:MOST_PANELS]:
        of = _of(said, name)
        start, _ = closed_up(of)
        lines = [
            Line(list(zip(start.tolist(), of[key].tolist(), strict=True)), style, what)
            for key, style, what in (("y_true", "ink", "measured"), ("y_pred", "m0", "predicted"))
        ]
        x, y = (Scale.of([p[i] for one in lines for p in one.points]) for i in (0, 1))
        panels.append(line_panel(name, lines, f"{name}: measured and predicted", x=x, y=y, x_name="s"))
    return panels


def target_cloud(said: Table) -> Panel:
    """Predicted against measured, every test window a point; on the diagonal they agree."""
    n = len(said["y_true"])
    keep = np.sort(np.argsort(hash_np(word("cloud"), np.arange(n)), kind="stable")[:MOST_WINDOWS])
    true, pred = said["y_true"][keep].astype(float), said["y_pred"][keep].astype(float)
    scale = Scale.of([*true.tolist(), *pred.tolist()])
    alt = f"Predicted against measured for {len(true)} of {n} windows"
    places = [(scale.at(a), 100 - scale.at(b)) for a, b in zip(true.tolist(), pred.tolist(), strict=True)]
    parts = [path("M0 100L100 0", "line reference r1", "as measured"), path(dots(places), "point m0", "a window")]
    title = f"predicted (upwards) against measured{f', {len(true):,} of {n:,} windows' if len(true) < n else ''}"
    return Panel(title, picture(parts, alt, "cloud"), scale.ticks(4), scale.ticks(), "measured")
