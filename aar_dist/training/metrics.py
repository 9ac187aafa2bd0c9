"""What is measured, and the file that keeps it.

    micro-batch metrics (B,) of this rank -> Meter -> sums over ranks -> one JSON line for each step

``metrics.jsonl`` is written before anything else hears of a number. After a resume it holds what an uninterrupted run
would have written.
"""

import contextlib
import json
import math
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aar_dist.base import json_lines, storage
from aar_dist.models.cost import training
from aar_dist.objectives.base import Metrics, Objective
from aar_dist.stream.batch import SegmentBatch
from aar_dist.training.ranks import sum_ranks

Row = dict[str, Any]
LONGEST_LINE = 1 << 16


class Meter:
    """Means of per-segment metrics over all ranks: over all segments, and the loss for each data set as well."""

    def __init__(self, datasets: Sequence[str]) -> None:
        self.datasets = datasets
        self._sums: dict[str, Tensor] = {}

    def add(self, metrics: Metrics, dataset: Tensor, weight: Tensor | None = None) -> None:
        """Metrics (B,) of one micro-batch; NaN counts for nothing, weight (B,) scales the rest."""
        weight = torch.ones(len(dataset), device=dataset.device) if weight is None else weight
        for name, values in metrics.items():
            counted = weight.double() * values.isfinite()
            terms = torch.stack([values.double().nan_to_num(0.0, 0.0, 0.0) * counted, counted])
            total = terms.new_zeros(2, len(self.datasets)).index_add(1, dataset, terms)
            self._sums[name] = self._sums[name] + total if name in self._sums else total

    def take(self) -> Row:
        """The means since the last call, ``loss`` and ``loss/<data set>`` and so on; every rank must call it."""
        names = sorted(self._sums)
        if not names:
            return {}
        totals = sum_ranks(torch.stack([self._sums[name] for name in names]))
        self._sums = {}
        row: Row = {}
        for name, (sums, counts) in zip(names, totals, strict=True):
            row[name] = _ratio(float(sums.sum()), float(counts.sum()))
            each = zip(self.datasets, sums.tolist(), counts.tolist(), strict=True)
            row |= {f"{name}/{dataset}": s / n for dataset, s, n in each if n}
        return row


def _ratio(total: float, count: float) -> float:
    return total / count if count else math.nan


class Clock:
    """Throughput between two calls of :meth:`take`, of as many ranks as there are: their parts are alike."""

    def __init__(self, world_size: int, objective: Objective, matmul_tflops: float) -> None:
        """
        Args:
            objective: What is trained; its costs tell the useful operations of a batch.
            matmul_tflops: What one rank's accelerator can do.
        """
        self.world_size = world_size
        self.matmul_tflops = matmul_tflops
        self._backbone = objective.backbone
        costs = objective.costs()
        self._work = training(costs) if costs else None
        self._reset()

    def _reset(self) -> None:
        self._since, self._waited, self._segments = time.perf_counter(), 0.0, 0
        self._sums: Tensor | None = None

    def waited(self, seconds: float) -> None:
        """Time spent waiting for the stream."""
        self._waited += seconds

    def trained(self, batch: SegmentBatch) -> None:
        """A micro-batch of this rank. What was cut off a segment, or filled up, does not count."""
        self._segments += len(batch.dataset)
        n = self._backbone.n_tokens(batch)
        seconds = (batch.valid.any(2).sum(1) / batch.rate_hz).sum(dtype=torch.float64)
        # They stay on the device, where looking at them would wait for the step.
        sums = torch.stack([seconds, n.sum(), n.square().sum()])
        self._sums = sums if self._sums is None else self._sums + sums

    def pause(self, seconds: float) -> None:
        """Leave out time that was spent on validation or saving."""
        self._since += seconds

    def take(self) -> Row:
        """Segments and hours of recording a second over all ranks; of this rank the share of time spent waiting for
        the stream, and that of ``matmul_tflops`` that went into the model (``mfu``): forward and backward of what was
        recorded. Padding and what is computed twice are no use."""
        elapsed = max(time.perf_counter() - self._since, 1e-9)
        seconds, tokens, pairs = [0.0] * 3 if self._sums is None else self._sums.tolist()
        flops = self._work.of(tokens, pairs) if self._work else math.nan
        row = {
            "segments_per_s": self.world_size * self._segments / elapsed,
            "hours_per_s": self.world_size * seconds / 3600 / elapsed,
            "loader_share": min(1.0, self._waited / elapsed),
            "mfu": flops / elapsed / (1e12 * self.matmul_tflops),
            "matmul_tflops": self.matmul_tflops,
        }
        self._reset()
        return row


def memory_gb(device: torch.device) -> float:
    """Largest memory so far [GB]: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class MetricsFile:
    """``metrics.jsonl``: one object on a line, each with its ``step``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (kept open for the run)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one line. NaN is written as null, since JSON has none."""
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        with storage.one_line_errors(self.path):
            self._file.write(json.dumps(plain) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Force it onto the disk, before a checkpoint that counts on it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_rows(path: Path) -> list[Row]:
    """All whole lines of a metrics file; a last line cut off by a kill is left out."""
    return json_lines.read(path)


def last_step(path: Path, since: float) -> int | None:
    """Step of the last whole line, if the file was written after ``since`` (seconds since the epoch). Reads its end
    alone: it is asked every second."""
    try:
        if path.stat().st_mtime < since:
            return None
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LONGEST_LINE))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return None
    for line in reversed(lines):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if line.endswith(b"\n"):
                return int(json.loads(line)["step"])
    return None


def trim(path: Path, step: int) -> int:
    """Forget what was written after ``step``; returns the last step that had been written."""
    rows = read_rows(path)
    kept = [row for row in rows if row["step"] <= step]
    storage.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
    return max((row["step"] for row in rows), default=-1)
