"""The figures that several sections draw: rows with dots, panels with lines, clouds of points.

Each is a small dataclass that a macro of the template lays out; see svg.py for how it fills its width.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from aar_dist.report.svg import Points, Scale, Tick, again, dots, line, path, picture, shared, thinned


@dataclass(frozen=True)
class Mark:
    """A dot in a row."""

    value: float
    style: str
    """CSS classes: ``m0`` is a method's colour and shape, ``small`` a faint one."""
    title: str


@dataclass(frozen=True)
class Row:
    """A name, a picture and, in words, what it says."""

    name: str
    svg: Markup
    text: str = ""
    flag: str = ""
    """Stands after the name, such as: seen in pretraining."""


@dataclass(frozen=True)
class Rows:
    """Rows over one axis."""

    title: str
    rows: list[Row]
    ticks: list[Tick]


@dataclass(frozen=True)
class Line:
    """A line of a panel."""

    points: Points
    style: str
    title: str
    colour: str = ""


@dataclass(frozen=True)
class Panel:
    """Lines, or a cloud, over two axes."""

    title: str
    svg: Markup
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    x_name: str = ""


def dot_row(
    scale: Scale,
    marks: Sequence[Mark],
    alt: str,
    interval: tuple[float, float] | None = None,
    style: str = "m0",
    *,
    zero: bool = False,
) -> Markup:
    """Dots on a line, the last one on top; the interval as a bar through them, a line where zero is if asked for."""
    parts = [path(f"M{tick.at:g} 0V100", "grid") for tick in scale.ticks()]
    if zero:
        parts.append(path(f"M{scale.at(0.0):g} 0V100", "line reference"))
    if interval:
        low, high = (scale.at(v) for v in interval)
        parts.append(path(f"M{low:g} 50H{high:g}", f"interval {style}"))
    for mark in marks:
        at = dots([(scale.at(mark.value), 50.0)])
        parts.append(path(at, f"dot {mark.style}", mark.title))
        parts.append(path(at, f"hole {mark.style}"))
    return picture(parts, alt, "strip")


def bar_row(scale: Scale, value: float, alt: str, colour: str = "") -> Markup:
    """A bar from the lower end."""
    grid = [path(f"M{tick.at:g} 0V100", "grid") for tick in scale.ticks()]
    return picture([*grid, path(f"M0 50H{scale.at(value):g}", "bar", colour=colour)], alt, "strip")


def line_panel(
    title: str, lines: Sequence[Line], alt: str, *, x: Scale, y: Scale, x_name: str = "step", marks: Sequence[Line] = ()
) -> Panel:
    """Lines in one panel; ``marks`` are single points on them."""
    parts = [path(f"M0 {100 - tick.at:g}H100", "grid") for tick in y.ticks()]
    for one in lines:
        at = [(x.at(a), 100 - y.at(b)) for a, b in thinned(one.points)]
        if len(at) == 1:
            parts.append(path(dots(at), f"dot {one.style}", one.title, one.colour))
        parts.append(path(line(_rounded(at)), f"line {one.style}", one.title, one.colour))
    for one in marks:
        at = [(x.at(a), 100 - y.at(b)) for a, b in one.points]
        parts.append(path(dots(at), f"dot {one.style}", one.title, one.colour))
    return Panel(title, picture(parts, alt, "area"), x.ticks(4), y.ticks(), x_name)


def cloud_each(groups: Sequence[Line], what: str) -> list[Panel]:
    """A small cloud for each group, over all points in grey: more groups than colours can be told apart.

    Args:
        groups: Their titles are names of the panels.
        what: They are, such as "windows".
    """
    clouds = _clouds(groups)
    name = f"all-{hashlib.sha256(''.join(clouds).encode()).hexdigest()[:12]}"
    made = []
    for k, (group, d) in enumerate(zip(groups, clouds, strict=True)):
        first = [] if k else [shared("".join(clouds), "point rest", name)]
        parts = [*first, again(name), path(d, "point m0", group.title)]
        alt = f"{group.title}: {len(group.points)} {what} among all"
        made.append(Panel(group.title, picture(parts, alt, "cloud small"), [], []))
    return made


def cloud_scales(points: Points) -> tuple[Scale, Scale]:
    """Along and upwards."""
    return Scale.of(p[0] for p in points), Scale.of(p[1] for p in points)


def _clouds(groups: Sequence[Line]) -> list[str]:
    """Path data of each group, on one scale."""
    x, y = cloud_scales([p for group in groups for p in group.points])
    return [dots(_rounded([(x.at(a), 100 - y.at(b)) for a, b in g.points])) for g in groups]


def _rounded(points: Points) -> list[tuple[float, float]]:
    return [(round(x, 1), round(y, 1)) for x, y in points]
