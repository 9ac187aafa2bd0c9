"""What each animal spent each day on.

Ethogram of each recording -> its runs on the clock of each day -> budget: seconds and share -> lanes of the picture
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from aar_dist.base.timelines import Lane
from aar_dist.evaluation.ethogram import Floats, Ints

DAY_S = 86_400.0
SHORTEST_S = 1e-6
"""What lies on a day by less is rounding: a recording that ends at midnight begins no other day."""
SAME_TIME = timedelta(seconds=1)
"""What recordings of one animal may overlap by without a word: clocks are not better."""
Part = tuple[Floats, Floats, Ints]
"""Start [s], stop [s] and class of runs."""


@dataclass(frozen=True, kw_only=True)
class Ethogram:
    """What was predicted of one recording: n rows in order."""

    dataset: str
    subject: str
    recording: str
    source: str
    """The original file, where known."""
    start_time: str | None
    """ISO 8601."""
    duration_s: float
    offset_s: float = 0.0
    """Of a table: from the first row of the animal in its file to the start of this recording."""
    start_s: Floats
    """(n,) in the recording."""
    stop_s: Floats
    label: Ints
    """(n,) class; 0 from a model that predicts a number."""
    value: Floats
    """(n,) confidence, or the number."""

    def __len__(self) -> int:
        return len(self.start_s)

    def by(self, offset_s: float, pace: float) -> "Ethogram":
        """By a clock that began ``offset_s`` before, and goes ``pace`` seconds in one of ours."""
        times = {name: getattr(self, name) * pace for name in ("start_s", "stop_s", "duration_s")}
        return replace(self, offset_s=offset_s, **times)


@dataclass(frozen=True)
class Day:
    """The runs of one animal on one day, in the order of time."""

    dataset: str
    subject: str
    name: str
    """``2024-05-13``, or ``day 1`` since its first recording."""
    start_s: Floats
    """(n,) since midnight, or since the day of recordings began."""
    stop_s: Floats
    label: Ints

    @property
    def on_calendar(self) -> bool:
        """Whether it is a date; its clock begins at midnight then."""
        return self.name[0].isdigit()


def days(ethograms: Sequence[Ethogram]) -> list[Day]:
    """The days of every animal, by data set, subject and time.

    A recording with a start time counts on the calendar of its own clock. Those of an animal without one are put one
    behind the other, in their order, with the gaps that a table tells, and ``day 1`` is the first 24 hours of that.
    """
    parts: dict[tuple[str, str, int, str], list[Part]] = {}
    placed: dict[tuple[str, str], _Placed] = {}
    for e in ethograms:
        animal = (e.dataset, e.subject)
        calendar = datetime.fromisoformat(e.start_time) if e.start_time else None
        offset_s = placed.setdefault(animal, _Placed()).begin_s(e) if calendar is None else _since_midnight(calendar)
        for number, part in _cut(e.start_s + offset_s, e.stop_s + offset_s, e.label):
            date = calendar and (calendar + timedelta(days=number)).date()
            key = (*animal, number if date is None else date.toordinal(), date.isoformat() if date else "")
            parts.setdefault(key, []).append(part)
    return [_day(key, parts[key]) for key in sorted(parts)]


class _Placed:
    """Recordings of one animal, one behind the other."""

    def __init__(self) -> None:
        self.source, self.source_s, self.end_s = "", 0.0, 0.0

    def begin_s(self, e: Ethogram) -> float:
        """Where the next one begins: behind the last one, or later where its table tells of a gap."""
        if e.source != self.source:
            self.source, self.source_s = e.source, self.end_s
        begin_s = max(self.end_s, self.source_s + e.offset_s)
        self.end_s = begin_s + e.duration_s
        return begin_s


def _day(key: tuple[str, str, int, str], parts: list[Part]) -> Day:
    dataset, subject, number, date = key
    start, stop, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(start, kind="stable")
    return Day(dataset, subject, date or f"day {number + 1}", start[order], stop[order], label[order])


def _since_midnight(moment: datetime) -> float:
    return moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6


def _cut(start_s: Floats, stop_s: Floats, label: Ints) -> Iterator[tuple[int, Part]]:
    """Number of the day, and the parts of runs that lie on it, on its clock."""
    if not len(start_s):
        return
    for number in range(int(start_s.min() // DAY_S), int(np.ceil(stop_s.max() / DAY_S))):
        begin = number * DAY_S
        start, stop = np.maximum(start_s, begin) - begin, np.minimum(stop_s, begin + DAY_S) - begin
        if (on := stop - start > SHORTEST_S).any():
            yield number, (start[on], stop[on], label[on])


def counted_twice(ethograms: Sequence[Ethogram]) -> list[str]:
    """Animals of which two recordings cover the same time of a calendar: a budget counts that time twice."""
    ends: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
    for e in ethograms:
        if e.start_time:
            begin = datetime.fromisoformat(e.start_time).replace(tzinfo=None)  # days, too, go by the recording's clock
            ends.setdefault((e.dataset, e.subject), []).append((begin, begin + timedelta(seconds=e.duration_s)))
    return [
        f"{dataset}/{subject}"
        for (dataset, subject), of in sorted(ends.items())
        if any(b - a > SAME_TIME for (_, b), (a, _) in pairwise(sorted(of)))
    ]


def budget(found: Sequence[Day], classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class of each day: seconds, and their share of the day's predicted time."""
    rows = []
    for day in found:
        seconds = np.bincount(day.label, day.stop_s - day.start_s, len(classes))
        for name, value in zip(classes, seconds.tolist(), strict=True):
            place = {"dataset": day.dataset, "subject": day.subject, "day": day.name}
            rows.append(
                {**place, "behaviour": name, "seconds": round(value, 6), "share": round(value / seconds.sum(), 9)}
            )
    return rows


def lanes(found: Sequence[Day]) -> list[Lane]:
    """A lane for each day."""
    several = len({day.dataset for day in found}) > 1
    return [
        Lane(f"{day.dataset}/{day.subject} · {day.name}" if several else f"{day.subject} · {day.name}",
             day.start_s, day.stop_s, day.label)
        for day in found
    ]  # fmt: skip
