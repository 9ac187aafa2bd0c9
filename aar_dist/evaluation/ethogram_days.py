"""What each animal spent each day on.

Ethogram of each recording -> its runs on the clock of each day -> budget: seconds and share -> lanes of the picture
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from aar_dist.base.timelines import Lane
from aar_dist.evaluation.ethogram import Floats, Ints

DAY_S = 86_400.0
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


@dataclass(frozen=True)
class Day:
    """The runs of one animal on one day, in the order of time."""

    dataset: str
    subject: str
    name: str
    """``2024-05-13``, or ``day 1`` of the recorded time."""
    start_s: Floats
    """(n,) since midnight, or since the day of recorded time began."""
    stop_s: Floats
    label: Ints


def days(ethograms: Sequence[Ethogram]) -> list[Day]:
    """The days of every animal, by data set, subject and time.

    A recording with a start time counts on the calendar of its own clock. Those of an animal without one are put one
    behind the other, in their order, and ``day 1`` is the first 24 hours of that.
    """
    parts: dict[tuple[str, str, int, str], list[Part]] = {}
    recorded_s: dict[tuple[str, str], float] = {}
    for e in ethograms:
        animal = (e.dataset, e.subject)
        calendar = datetime.fromisoformat(e.start_time) if e.start_time else None
        offset_s = recorded_s.get(animal, 0.0) if calendar is None else _since_midnight(calendar)
        if calendar is None:
            recorded_s[animal] = offset_s + e.duration_s
        for number, part in _cut(e.start_s + offset_s, e.stop_s + offset_s, e.label):
            date = calendar and (calendar + timedelta(days=number)).date()
            key = (*animal, number if date is None else date.toordinal(), date.isoformat() if date else "")
            parts.setdefault(key, []).append(part)
    return [_day(key, parts[key]) for key in sorted(parts)]


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
        if (on := stop > start).any():
            yield number, (start[on], stop[on], label[on])


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
