"""How the folds stand: a table that changes on a terminal, a line for each finished one in a log; jobs.jsonl keeps it.

who began what, where (told by the scheduler) + metrics.json, metrics.jsonl of each folder -> Standing … -> fold_views
"""

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live

from aar_dist.base import json_lines
from aar_dist.base.attempts import Place
from aar_dist.base.metrics import MAIN
from aar_dist.evaluation import fold_views
from aar_dist.evaluation.fold_jobs import FoldJob, Outcome
from aar_dist.evaluation.fold_standing import Begun, Pace, Standing, last_step
from aar_dist.training.finetuning.card import HEADLINE
from aar_dist.training.finetuning.predictions import METRICS
from aar_dist.training.finetuning.trained import TRAINED


class FoldTable:
    """Shows all jobs while it is open."""

    def __init__(self, jobs: Sequence[FoldJob], n_left: int | None = None, history: Path | None = None) -> None:
        """
        Args:
            jobs: All that are tested.
            n_left: Jobs to be done, candidates among them.
            history: A file that keeps who began what, and how it ended.
        """
        self._jobs, self._history = jobs, history
        self.failed: dict[str, str] = {}
        self.begun: dict[str, Begun] = {}
        """What is being done, by the name of the job."""
        self.pace = Pace(sum(not job.done for job in jobs) if n_left is None else n_left)
        self.news = ""
        """The last thing that went wrong and is tried again."""
        self._machines: dict[str, Place] = {}
        self._over = {one.name for job in jobs for one in (job, *job.candidates) if one.done}
        self._live: Any = None
        self._console = Console()
        self._scores: dict[str, dict[str, float]] = {}
        """Of what is done: it changes no more."""
        self._level = 0

    def __enter__(self) -> "FoldTable":
        if sys.stdout.isatty():
            self._live = Live(self.picture(*self._console.size), console=self._console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self.tick()
            self._live.stop()

    def tick(self) -> None:
        """Look again."""
        if self._live:
            self._live.update(self.picture(*self._console.size))

    def started(self, job: FoldJob, place: Place) -> None:
        """Somebody has begun a job."""
        self.begun[job.name] = Begun(job, place, time.monotonic())
        self._machines.setdefault(place.node, place)
        self._keep(job, "begun", place)

    def again(self, job: FoldJob, place: Place | None, why: str) -> None:
        """A job ended badly, and is tried again."""
        self.begun.pop(job.name, None)
        self._keep(job, "again", place, why)
        where = f" on {self.machine(place)}" if place and len(self._machines) > 1 else ""
        self.say(f"again: {job.name}{where}: {why}")

    def say(self, text: str) -> None:
        """Something that concerns all jobs."""
        self.news = text
        if not self._live:
            print(text, flush=True)

    def finished(self, outcome: Outcome) -> None:
        """One more is done, or has failed."""
        job = outcome.job
        begun = self.begun.pop(job.name, None)
        self.pace.finished(job, time.monotonic() - begun.since if begun else 0.0)
        self._over.add(job.name)
        if outcome.failed:
            self.failed[job.name] = outcome.failed
        self._keep(job, "failed" if outcome.failed else "done", begun.place if begun else None, outcome.failed)
        if self._live:
            self.tick()
        elif outcome.failed:
            print(f"FAILED {job.name}: {outcome.failed}", flush=True)
        else:
            where = f"  on {self.machine(begun.place)}" if begun and len(self._machines) > 1 else ""
            said = f"{self.pace.n_done}/{self.pace.n_left}  {job.name}: {_scored(job)}{where}"
            print(f"{said}  {self.pace.told(self._left(), [*self.begun.values()])}", flush=True)

    def _keep(self, job: FoldJob, event: str, place: Place | None, why: str | None = None) -> None:
        """A line of the history; without a disk for it the folds go on."""
        if self._history is None:
            return
        told = {"job": job.name, "event": event, **({"why": why} if why else {})}
        who = {"host": place.host, "address": place.address, "process": place.process} if place else {}
        with contextlib.suppress(OSError):
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            json_lines.append(self._history, {"time": now, **told, **who})

    def machine(self, place: Place) -> str:
        """What a person calls it: its host, but several on one host by their addresses."""
        hosts = [one.host for one in self._machines.values()]
        return place.address if hosts.count(place.host) > 1 else place.host

    def picture(self, width: int, height: int) -> Any:
        """The table for a terminal of this size."""
        rows: dict[tuple[str, ...], list[Standing]] = {}
        for job in self._jobs:
            rows.setdefault((job.method, job.share, f"seed {job.seed}"), []).append(self._standing(job))
        title = f"{self._shown()} {self.pace.told(self._left(), [*self.begun.values()])}"
        machines: dict[str, list[Begun]] = {}
        for one in self.begun.values():
            machines.setdefault(self.machine(one.place), []).append(one)
        view = fold_views.View(title, rows, machines, tuple(self.failed), self.news)
        picture, self._level = fold_views.draw(view, width, height, self._level)
        return picture

    def _left(self) -> list[FoldJob]:
        """What is not over, each candidate for itself."""
        return [one for job in self._jobs for one in (job, *job.candidates) if one.name not in self._over]

    def _standing(self, job: FoldJob) -> Standing:
        if job.name in self.failed or any(one.name in self.failed for one in job.candidates):
            return Standing(job, "failed")
        if job.name in self._over:
            if job.name not in self._scores:
                self._scores[job.name] = _scores(job)
            scores = self._scores[job.name]
            return Standing(job, "done", value=next((v for k, v in scores.items() if k in MAIN), None))
        tried = sum(one.name in self._over for one in job.candidates)
        if job.name in self.begun:
            return Standing(job, "trains", step=last_step(job.folder), tried=tried)
        busy = tried or any(one.name in self.begun for one in job.candidates)
        return Standing(job, "trains" if busy else "waits", tried=tried)

    def _shown(self) -> str:
        names = {name for told in self._scores.values() for name in told}
        return next((name.replace("_", " ") for name in MAIN if name in names), "score")


def _scores(job: FoldJob) -> dict[str, float]:
    """The headline of a finished job."""
    file = job.folder / METRICS
    said = json.loads(file.read_text()) if file.exists() else {}
    return {name: said[name] for name in HEADLINE if said.get(name) is not None}


def _scored(job: FoldJob) -> str:
    if job.settings is not None and (job.folder / TRAINED).exists():
        loss = json.loads((job.folder / TRAINED).read_text())["val_loss"]
        return "diverged" if loss is None else f"validation loss {loss:.4f}"
    return "  ".join(f"{name} {value:.4f}" for name, value in _scores(job).items()) or "done"
