"""How the folds stand: a table that changes on a terminal, a line for each finished one in a log.

Everything is read from the folders of the runs, so it is the same whoever trains them, and where.
"""

import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from aar_dist.base.metrics import MAIN
from aar_dist.evaluation.fold_jobs import FoldJob, Outcome
from aar_dist.training.finetune_card import HEADLINE
from aar_dist.training.metrics import read_rows
from aar_dist.training.predictions import METRICS


class FoldTable:
    """Shows all jobs while it is open."""

    def __init__(self, jobs: Sequence[FoldJob]) -> None:
        self._jobs = jobs
        self._failed: dict[str, str] = {}
        self._left = sum(not job.done for job in jobs)
        self._done, self._began = 0, time.monotonic()
        self._live: Any = None

    def __enter__(self) -> "FoldTable":
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(self._table(), refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.update(self._table())
            self._live.stop()

    def tick(self) -> None:
        """Look again."""
        if self._live:
            self._live.update(self._table())

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

    def _table(self) -> Any:
        from rich.table import Table

        rows: dict[str, list[FoldJob]] = {}
        for job in self._jobs:
            rows.setdefault(f"{job.method}  seed {job.seed}", []).append(job)
        folds = list(dict.fromkeys(str(job.fold) for job in self._jobs))
        table = Table(title=f"{_shown(self._jobs)} of each fold {self._time_left()}", title_justify="left")
        table.add_column("")
        for fold in folds:
            table.add_column(f"fold {fold}", justify="right")
        for name, jobs in rows.items():
            of = {str(job.fold): self._cell(job) for job in jobs}
            table.add_row(name, *(of.get(fold, "") for fold in folds))
        return table

    def _cell(self, job: FoldJob) -> str:
        if job.name in self._failed:
            return "[red]failed[/red]"
        if job.done:
            value = next((v for k, v in _scores(job).items() if k in MAIN), None)
            return "[green]done[/green]" if value is None else f"[bold]{value:.3f}[/bold]"
        rows = read_rows(job.folder / "metrics.jsonl")
        if rows:
            return f"[dim]step {rows[-1]['step']}[/dim]"
        return "[dim]…[/dim]" if job.folder.exists() else "[dim]·[/dim]"


def _scores(job: FoldJob) -> dict[str, float]:
    """The headline of a finished job."""
    file = job.folder / METRICS
    said = json.loads(file.read_text()) if file.exists() else {}
    return {name: said[name] for name in HEADLINE if said.get(name) is not None}


def _scored(job: FoldJob) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in _scores(job).items()) or "done"


def _shown(jobs: Sequence[FoldJob]) -> str:
    names = {name for job in jobs if job.done for name in _scores(job)}
    return next((name.replace("_", " ") for name in MAIN if name in names), "score")
