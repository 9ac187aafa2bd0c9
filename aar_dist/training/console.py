"""What rank 0 says while it trains: a bar on a terminal, plain lines in a log."""

import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from aar_dist.training.ranks import Ranks

log = logging.getLogger(__name__)

SHOWN = ("loss", "zero_mse", "interpolation_mse", "accuracy", "mae")
"""Metrics of a validation that a person is told."""


class Console:
    """Speaks on rank 0 and writes every rank's log."""

    def __init__(self, ranks: Ranks, total_steps: int) -> None:
        self.main = ranks.main
        self._total = total_steps
        self._width = len(str(total_steps))
        self._bar: Any = None
        self._task: Any = None
        if self.main and sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                BarColumn(20), TimeRemainingColumn(), TextColumn("{task.completed}/{task.total}  {task.fields[said]}")
            )
            self._task = self._bar.add_task("training", total=total_steps, said="")
            self._bar.start()

    def say(self, text: str) -> None:
        """A line for the person at the terminal."""
        log.info(text)
        if self.main:
            if self._bar:
                self._bar.console.print(text, highlight=False, soft_wrap=True)
            else:
                _print(text, sys.stdout)

    def warn(self, text: str) -> None:
        """A line nobody should overlook."""
        log.warning(text)
        if self.main:
            _print(f"WARNING: {text}", sys.stderr)

    def step(self, row: Mapping[str, Any]) -> None:
        """How training stands."""
        mfu = "unknown" if math.isnan(row["mfu"]) else f"{row['mfu']:.0%}"
        text = (
            f"loss {row['loss']:.4f}  lr {row['lr']:.2e}  grad {row['grad_norm']:.2f}  "
            f"{row['segments_per_s']:.0f} segments/s  {row['hours_per_s']:.2f} h/s  mfu {mfu}  "
            f"loader {row['loader_share']:.0%}"
        )
        if self._bar:
            self._bar.update(self._task, completed=row["step"], said=text)
            log.info(text)
        else:
            self.say(f"{time.strftime('%H:%M:%S')} step {row['step']:>{self._width}}/{self._total}  {text}")

    def validation(self, row: Mapping[str, Any], datasets: tuple[str, ...]) -> None:
        """One line for each data set: the loss beside what tells how good it is."""
        for dataset in ("", *(f"/{name}" for name in datasets)):
            if f"val/loss{dataset}" not in row:
                continue
            names = [n for n in SHOWN if f"val/{n}{dataset}" in row]
            text = "  ".join(f"{name} {row[f'val/{name}{dataset}']:.4f}" for name in names)
            self.say(f"{'':8} step {row['step']:>{self._width}}  validation {dataset[1:] or 'all'}: {text}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()


def _print(text: str, stream: TextIO) -> None:
    """A run goes on without a listener (its supervisor was killed, a ``| tee`` ended): its log has every line."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
