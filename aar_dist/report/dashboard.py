"""How a run goes, on one page that needs neither a server nor a network.

RUN/metrics.jsonl, wandb/{attempts,alerts}.jsonl, pictures/ -> the panels of training/tracking/panels.py -> HTML
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aar_dist.base import storage
from aar_dist.base.errors import ConfigError
from aar_dist.report.charts import Line, Panel, line_panel
from aar_dist.report.curves import last, loss_scale
from aar_dist.report.folders import Run, read_folder, series
from aar_dist.report.numbers import count, number
from aar_dist.report.page import environment
from aar_dist.report.run_part import newest_picture
from aar_dist.report.svg import Scale
from aar_dist.training.metrics import Row
from aar_dist.training.tracking import panels
from aar_dist.training.tracking.record import Attempt, Record

STYLES = 8
"""Colours that can be told apart; lines beyond them begin again."""
ALERTS = 12
NAMES = {"val/masked_mse": "the model", "val/interpolation_mse": "a straight line through what is hidden"}
"""Keys that are called otherwise."""


def write_dashboard(path: Path, out: Path, *, refresh_s: float | None = None) -> bool:
    """Write the page of a run; returns whether the run is finished. ``refresh_s``: the page loads itself anew."""
    run = read_folder(path)
    if not isinstance(run, Run):
        raise ConfigError(f"{path}: holds folds, expected one run (config.yaml and metrics.jsonl)")
    text = environment().get_template("dashboard.html.j2").render(refresh_s=refresh_s, **dashboard(run))
    storage.write_text(out, text)
    return run.finished is not None


def dashboard(run: Run) -> dict[str, Any]:
    """What the template needs."""
    record = Record(run.path)
    attempts, alerts = record.attempts(), record.alerts()
    steps = [row["step"] for row in run.rows] or [0]
    x = Scale.of([float(step) for step in steps], zero=True)
    return {
        "title": run.name,
        "kind": run.kind,
        "headline": _headline(run, record, attempts),
        "sections": [(one.title, made) for one in panels.SECTIONS if (made := _section(one, run.rows, x, attempts))],
        "alerts": [(_when(one.at_s), one.level, one.title, one.text) for one in alerts[-ALERTS:][::-1]],
        "n_alerts": len(alerts),
        "picture": newest_picture(run.path / "pictures"),
        "attempts": [_attempt(one, record) for one in attempts[-ALERTS:][::-1]],
        "config": run.config_text,
    }


def _headline(run: Run, record: Record, attempts: Sequence[Attempt]) -> str:
    step = int(last(run.rows, "step") or 0)
    of = f" of {attempts[-1].total_steps:,}" if attempts else ""
    if run.finished is not None:
        state = "finished"
    elif record.trains():
        state = "training"
    else:
        how = record.end_of(attempts[-1].number) if attempts else None
        state = {"stopped": "stopped", "failed": "failed"}.get(how or "", "not running")
    told = [f"{state} at step {step:,}{of}"]
    for key, name in (("loss", "loss"), ("val/loss", "validation loss"), ("segments_per_s", "segments a second")):
        value = last(run.rows, key)
        told += [f"{name} {number(value)}"] if value is not None else []
    if len(attempts) > 1:
        told.append(count(len(attempts), "launch", "launches"))
    return ", ".join(told)


def _section(
    section: panels.Section, rows: Sequence[Row], x: Scale, attempts: Sequence[Attempt]
) -> list[dict[str, Any]]:
    keys = {key for row in rows for key in row}
    return [made for panel in section.panels if (made := _panel(panel, panel.found(keys), rows, x, attempts))]


def _panel(
    panel: panels.Panel, keys: Sequence[str], rows: Sequence[Row], x: Scale, attempts: Sequence[Attempt]
) -> dict[str, Any] | None:
    factor = 100.0 if panel.percent else 1.0
    found = [(key, [(step, factor * value) for step, value in series(rows, key)]) for key in keys]
    lines = [Line(points, f"m{i % STYLES}", _short(key, keys)) for i, (key, points) in enumerate(found) if points]
    if not lines:
        return None
    values = [value for one in lines for _, value in one.points]
    y = loss_scale(lines) if panel.log else Scale.of(values, zero=min(values) >= 0)
    marks = _marks(panel, rows, lines[0])
    ends = "; ".join(f"{one.title} {number(one.points[-1][1])}" for one in lines)
    made: Panel = line_panel(panel.title, lines, f"{panel.title}: last {ends}", x=x, y=y, marks=marks)
    legend = [(one.style, one.title) for one in lines] if len(lines) > 1 else []
    return {"panel": made, "legend": legend, "last": number(lines[0].points[-1][1]) if len(lines) == 1 else ""}


def _marks(panel: panels.Panel, rows: Sequence[Row], on: Line) -> list[Line]:
    """Dots on a line where something happened: a number appeared, or a counter grew."""
    places = dict(on.points)
    marks = []
    for style, key in zip(("m1", "m6"), panel.marks, strict=False):
        points = series(rows, key)
        if key == "skipped_steps":
            points = [b for a, b in zip([(0.0, 0.0), *points], points, strict=False) if b[1] > a[1]]
        at = [(step, places[step]) for step, _ in points if math.isfinite(places.get(step, math.nan))]
        marks += [Line(at, style, f"{key.replace('_', ' ')}: {len(at)}")] if at else []
    return marks


def _short(key: str, keys: Sequence[str]) -> str:
    """What tells a line from the others of its panel."""
    if key in NAMES:
        return NAMES[key]
    if key.startswith("system/"):
        return key.split("/")[1]
    if len(keys) > 1 and all(one.split("/")[0] == keys[0].split("/")[0] for one in keys):
        rest = key.split("/", 2)[2:] if key.startswith("val/") else key.split("/", 1)[1:]
        return rest[0] if rest else ("all" if any("/loss/" in one for one in keys) else key.removeprefix("val/"))
    return key


def _attempt(attempt: Attempt, record: Record) -> dict[str, Any]:
    commit = attempt.code.get("commit") or attempt.code.get("hash") or ""
    return {
        "number": attempt.number,
        "started": _when(attempt.started_s),
        "host": attempt.host,
        "ranks": attempt.world_size,
        "step": f"{attempt.from_step:,}",
        "code": f"{attempt.code.get('version', '')} {commit[:12]}{' changed' if attempt.code.get('dirty') else ''}",
        "end": record.end_of(attempt.number) or "",
    }


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
