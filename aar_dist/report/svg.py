"""Inline SVG as wide as the screen lets it be: it is stretched, its strokes and dots are not, and all text stays HTML.

    value -> Scale -> percent of the picture -> paths with non-scaling strokes

A dot is a path of no length with a round cap; colours and sizes are CSS classes (see style.css), so that a figure
follows light, dark and print. Names that users chose go through ``Markup.format``, which escapes them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in percent, and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """From values to percent."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def of(cls, values: Iterable[float], *, log: bool = False, zero: bool = False) -> "Scale":
        """A scale that holds all values with a little room; ``zero`` begins it at 0."""
        found = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
        low, high = (min(found), max(found)) if found else (0.0, 1.0)
        if log:
            return cls(low / 1.15, high * 1.15, True)
        low = 0.0 if zero else low
        room = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
        return cls(low if zero else low - room, high + room)

    def at(self, value: float) -> float:
        """Percent from the lower end, held inside the picture."""
        low, high, value = (
            (math.log(v) if v > 0 else math.log(self.low)) if self.log else v for v in (self.low, self.high, value)
        )
        return round(min(100.0, max(0.0, 100 * (value - low) / (high - low))), 2)

    def ticks(self, most: int = 5) -> list[Tick]:
        """Round numbers along the axis."""
        values = self._decades(most) if self.log else _round_steps(self.low, self.high, most)
        return [Tick(self.at(v), f"{v:g}".replace("-", "−")) for v in values]

    def _decades(self, most: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [d * 10.0**e for e in range(first, last + 1) for d in digits]
            found = [float(f"{v:.6g}") for v in found if self.low <= v <= self.high]
            if len(found) <= most:
                return found
        return found


def _round_steps(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / max(1, most)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    return [float(f"{k * step:.10g}") for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def picture(parts: Iterable[Markup], alt: str, kind: str) -> Markup:
    """An SVG of 100 x 100 that is stretched to its box; ``kind`` is its CSS class."""
    head = Markup('<svg class="{}" viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{}">')
    return head.format(kind, alt) + Markup("").join(parts) + Markup("</svg>")


def path(d: str, classes: str, title: str = "", colour: str = "", style: str = "") -> Markup:
    """A path; the title is what hovering shows."""
    told = style or (f"--c:{colour}" if colour else "")
    style = Markup(' style="{}"').format(told) if told else Markup("")
    if not title:
        return Markup('<path class="{}"{} d="{}"/>').format(classes, style, d)
    return Markup('<path class="{}"{} d="{}"><title>{}</title></path>').format(classes, style, d, title)


def shared(d: str, classes: str, name: str) -> Markup:
    """A path that pictures of the page draw by :func:`again`."""
    return Markup('<defs><path id="{}" class="{}" d="{}"/></defs>').format(name, classes, d)


def again(name: str) -> Markup:
    """The :func:`shared` path of this name."""
    return Markup('<use href="#{}"/>').format(name)


def dots(points: Points) -> str:
    """Path data of a dot at each point, in percent from the upper left."""
    return "".join(f"M{x:g} {y:g}h0" for x, y in points)


def line(points: Points) -> str:
    """Path data of a line through the points."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) if points else ""


def thinned(points: Points, most: int = 150) -> list[tuple[float, float]]:
    """At most so many points, each the mean of its neighbours."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / most)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
