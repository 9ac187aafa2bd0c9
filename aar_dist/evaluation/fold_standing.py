"""How one fold stands, who does it, and how fast all go.

what the scheduler tells + metrics.jsonl of the folder -> Standing, Begun; seconds of what is done -> Pace
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aar_dist.base.attempts import Place
from aar_dist.evaluation.fold_jobs import FoldJob

TAIL_BYTES = 4096
State = Literal["failed", "done", "trains", "waits"]


@dataclass(frozen=True)
class Standing:
    """How a fold stands."""

    job: FoldJob
    state: State
    value: float | None = None
    """Its score."""
    step: int | None = None
    tried: int = 0
    """Of its candidates, those that are trained."""


@dataclass(frozen=True)
class Begun:
    """A job that is being done."""

    job: FoldJob
    place: Place
    since: float


class Pace:
    """How fast it goes, and how long it will take."""

    def __init__(self, n_left: int) -> None:
        self.n_left, self.n_done, self._began = n_left, 0, time.monotonic()
        self._took: dict[tuple[str, float], list[float]] = {}

    def finished(self, job: FoldJob, seconds: float) -> None:
        """One more."""
        self.n_done += 1
        self._took.setdefault(_kind(job), []).append(seconds)

    def told(self, left: Sequence[FoldJob], begun: Sequence[Begun]) -> str:
        """Minutes so far, runs a minute, minutes to go: what is left, each as long as others of its kind took, by as
        many at a time as there are now."""
        took = time.monotonic() - self._began
        said = f"{took / 60:.1f} min"
        if not left or not self._took:
            return f"({said})"
        known = [seconds for of in self._took.values() for seconds in of]
        usual = sum(known) / len(known)
        expected = sum(_mean(self._took.get(_kind(job)), usual) for job in left)
        ahead = sum(min(time.monotonic() - one.since, _mean(self._took.get(_kind(one.job)), usual)) for one in begun)
        togo = max(0.0, expected - ahead) / max(1, len(begun))
        return f"({said}, {60 * self.n_done / max(took, 1e-3):.1f} a minute, about {togo / 60:.1f} min to go)"


def last_step(folder: Path) -> int | None:
    """The step of the last whole line of metrics.jsonl."""
    try:
        with open(folder / "metrics.jsonl", "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
        return int(json.loads(lines[-1])["step"])
    except (OSError, IndexError, ValueError, KeyError):
        return None


def _kind(job: FoldJob) -> tuple[str, float]:
    """Jobs that take about as long."""
    what = f"{job.method} tested" if job.candidates else job.method
    return what, job.fraction


def _mean(values: Sequence[float] | None, otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
