"""What happened to a run: one line each in ``events.jsonl``, and an alert of the tracker.

    {"time": "2026-11-20T21:00:00+00:00", "kind": "skipped", "level": "warn", "title": …, "text": …, "step": 37, …}

Events of a step (kinds in ``OF_STEPS``) are cut back on a resume, as the numbers of the step are: they will happen
again. What happened to a launch stays.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from aar_dist.base import json_lines, storage
from aar_dist.training.metrics import Row, read_rows
from aar_dist.training.tracking import Run

Kind = Literal["skipped", "spike", "gave_up", "hang", "stopped"]
Level = Literal["info", "warn", "error"]

OF_STEPS: tuple[Kind, ...] = ("skipped", "spike")


class Events:
    """The history of a run; on rank 0, or on the one that speaks for a rank 0 that does not."""

    def __init__(self, path: Path, tracker: Run, *, told: int = -1) -> None:
        """
        Args:
            path: ``events.jsonl``.
            tracker: Is alerted.
            told: Steps up to this one were told before a restart; the tracker is not alerted of them again.
        """
        self.path, self._tracker, self._told = path, tracker, told

    def tell(
        self, kind: Kind, title: str, text: str, *, level: Level = "warn", step: int, alert: bool = True, **more: Any
    ) -> None:
        """Write an event down and alert people; ``more`` stands beside it in the file."""
        said = {"kind": kind, "level": level, "title": title, "text": text, "step": step, **more}
        with storage.one_line_errors(self.path):
            json_lines.append(self.path, {"time": datetime.now(UTC).isoformat(timespec="seconds"), **said})
        if alert and (kind not in OF_STEPS or step > self._told):
            self._tracker.alert(title, text, level)

    def steps_of(self, kind: Kind) -> dict[int, Row]:
        """Step -> the event of this kind."""
        return {row["step"]: row for row in read_rows(self.path) if row["kind"] == kind}


def cut_back(path: Path, step: int) -> int:
    """Forget the events of steps after ``step``; returns the last step of which one had been written."""
    rows = read_rows(path)
    kept = [row for row in rows if row["kind"] not in OF_STEPS or row["step"] <= step]
    if path.exists():
        storage.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
    return max((row["step"] for row in rows if row["kind"] in OF_STEPS), default=-1)
