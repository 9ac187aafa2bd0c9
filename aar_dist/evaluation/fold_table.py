"""How the folds stand: a table that changes on a terminal, a line for each finished one in a log.

A column for each fold where there is room, else how many of each method are done, train and have failed.

Everything is read from the folders of the runs, so it is the same whoever trains them, and where.
"""

import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from aar_dist.base.metrics import MAIN
from aar_dist.evaluation.fold_jobs import FoldJob, Outcome
from aar_dist.training.finetuning.card import HEADLINE
from aar_dist.training.finetuning.predictions import METRICS
from aar_dist.training.metrics import read_rows


class FoldTable:
    """Shows all jobs while it is open."""

    def __init__(self, jobs: Sequence[FoldJob]) -> None:
        self._jobs = jobs
        self._failed: dict[str, str] = {}
        self._left = sum(not job.done for job in jobs)
        self._done, self._began = 0, time.monotonic()
        self._live: Any = None
        self._scores: dict[str, dict[str, float]] = {}
        """Of what is done: it changes no more."""
        self._narrow = False
        """There has been no room for every fold; it stays so, that the picture does not jump."""

    def __enter__(self) -> "FoldTable":
        if sys.stdout.isatty():
            console = Console()
            self._live = Live(self._table(console.width), console=console, refresh_per_second=2)
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
            self._live.update(self._table(self._live.console.width))

    def finished(self, outcome: Outcome) -> None:
        """One more is done, or has failed."""
        self._done += 1
        if outcome.failed:
            self._failed[outcome.job.name] = outcome.failed
        if self._live:
            self.tick()
        elif outcome.failed:
            print(f"FAILED {outcome.job.name}: {outcome.failed}", flush=True)
        else:
            print(
                f"{self._done}/{self._left}  {outcome.job.name}: {_scored(outcome.job)}  {self._time_left()}",
                flush=True,
            )

    def _time_left(self) -> str:
        took = time.monotonic() - self._began
        left = took / max(1, self._done) * (self._left - self._done)
        return f"({took / 60:.1f} min, about {left / 60:.1f} to go)" if left else f"({took / 60:.1f} min)"

    def _table(self, width: int) -> Any:
        """Every fold in a column of its own, or how many stand where if a terminal of this width has no room."""
        rows: dict[str, list[FoldJob]] = {}
        for job in self._jobs:
            rows.setdefault(f"{job.method}  seed {job.seed}", []).append(job)
        standing = {name: [self._standing(job) for job in jobs] for name, jobs in rows.items()}
        shown, columns = self._shown(), dict.fromkeys(str(job.fold) for job in self._jobs)
        if not self._narrow:
            table = _each_fold(f"{shown} of each fold {self._time_left()}", list(columns), standing)
            wide = Console(width=1000)
            self._narrow = Measurement.get(wide, wide.options, table).maximum > width
            if not self._narrow:
                return table
        return _counted(f"{shown} of {len(columns)} folds {self._time_left()}", standing, width)

    def _standing(self, job: FoldJob) -> "Standing":
        if job.name in self._failed:
            return Standing(job, "failed")
        if job.name not in self._scores and job.done:
            self._scores[job.name] = _scores(job)
        if job.name in self._scores:
            value = next((v for k, v in self._scores[job.name].items() if k in MAIN), None)
            return Standing(job, "done", value=value)
        rows = read_rows(job.folder / "metrics.jsonl")
        if rows or job.folder.exists():
            return Standing(job, "trains", step=rows[-1]["step"] if rows else None)
        return Standing(job, "waits")

    def _shown(self) -> str:
        names = {name for told in self._scores.values() for name in told}
        return next((name.replace("_", " ") for name in MAIN if name in names), "score")


@dataclass(frozen=True)
class Standing:
    """How a fold stands."""

    job: FoldJob
    state: Literal["failed", "done", "trains", "waits"]
    value: float | None = None
    """Its score."""
    step: int | None = None

    @property
    def cell(self) -> str:
        """For a column of its own."""
        if self.state == "failed":
            return "[red]failed[/red]"
        if self.state == "done":
            return "[green]done[/green]" if self.value is None else f"[bold]{self.value:.3f}[/bold]"
        if self.step is not None:
            return f"[dim]step {self.step}[/dim]"
        return "[dim]…[/dim]" if self.state == "trains" else "[dim]·[/dim]"


def _each_fold(title: str, folds: Sequence[str], standing: Mapping[str, Sequence[Standing]]) -> Any:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for fold in folds:
        table.add_column(f"fold {fold}", justify="right")
    for name, row in standing.items():
        of = {str(one.job.fold): one.cell for one in row}
        table.add_row(name, *(of.get(fold, "") for fold in folds))
    return table


def _counted(title: str, standing: Mapping[str, Sequence[Standing]], width: int) -> Any:
    """A row for each method and seed, and below what trains now and what failed."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("done", "now", "failed", "mean", "least", "most"):
        table.add_column(name, justify="right")
    for name, row in standing.items():
        n = Counter(one.state for one in row)
        values = [one.value for one in row if one.value is not None]
        scores = [f"{of(values):.3f}" for of in (statistics.mean, min, max)] if values else ["", "", ""]
        failed = f"[red]{n['failed']}[/red]" if n["failed"] else ""
        table.add_row(
            name, f"{n['done']}/{len(row)}", str(n["trains"] or ""), failed, f"[bold]{scores[0]}[/bold]", *scores[1:]
        )
    said = [_named("now", standing, "trains"), _named("failed", standing, "failed")]
    return Group(table, *(Text(shortened(line, width)) for line in said if line))


def _named(what: str, standing: Mapping[str, Sequence[Standing]], state: str) -> str:
    """``now: net  seed 1  fold 3 step 40, fold 4 …``; empty where there is none."""
    parts = []
    for name, row in standing.items():
        folds = [
            f"fold {one.job.fold}" + (f" step {one.step}" if one.step else "") for one in row if one.state == state
        ]
        parts += [f"{name}  {', '.join(folds)}"] if folds else []
    return f"{what}: {'; '.join(parts)}" if parts else ""


def shortened(text: str, width: int) -> str:
    """At most so many characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _scores(job: FoldJob) -> dict[str, float]:
    """The headline of a finished job."""
    file = job.folder / METRICS
    said = json.loads(file.read_text()) if file.exists() else {}
    return {name: said[name] for name in HEADLINE if said.get(name) is not None}


def _scored(job: FoldJob) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in _scores(job).items()) or "done"
