"""RUN/attempts.jsonl: a line for each time the run was started, and the table made of them."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from aar_dist.base import json_lines

NAME = "attempts.jsonl"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One launch, from its start to its end. Times are seconds since the epoch."""

    number: int
    hosts: list[str]
    ranks: int
    from_step: int
    """Step of the checkpoint it went on from."""
    to_step: int
    """Step of the newest checkpoint at its end."""
    reached: int
    """Last step it made."""
    started: float
    ready: float | None
    """When its first step was made."""
    saved: float | None
    """When it made its newest checkpoint."""
    ended: float
    how: str
    """How it ended, in words."""

    @property
    def progressed(self) -> bool:
        """True if it left a newer checkpoint than it found."""
        return self.to_step > self.from_step

    @property
    def redone_s(self) -> float:
        """Seconds of work since the last checkpoint, which had to be done again."""
        since = self.saved or self.ready
        return self.ended - since if since else 0.0


def append(run: Path, attempt: Attempt) -> None:
    """Write a line. Raises ``OSError``."""
    json_lines.append(run / NAME, asdict(attempt))


def read(run: Path) -> list[Attempt]:
    """All that are recorded."""
    return [Attempt(**made) for made in json_lines.read(run / NAME)]


def lost_s(attempts: Sequence[Attempt]) -> list[float | None]:
    """Seconds that the end of each attempt cost: work since its last checkpoint, and all until the next one made its
    first step. None while that is not known; the end of a finished run costs nothing."""
    lost: list[float | None] = []
    for i, attempt in enumerate(attempts):
        after = attempts[i + 1] if i + 1 < len(attempts) else None
        if after is None:
            lost.append(0.0 if attempt.how == "finished" else None)
        elif attempt.ready is None:
            lost.append(after.started - attempt.started)  # it made no step; the next one's start is its own affair
        else:
            lost.append(attempt.redone_s + (after.ready or after.ended) - attempt.ended)
    return lost


def table(attempts: Sequence[Attempt]) -> str:
    """What people look at."""
    rows = [("attempt", "started", "ranks", "hosts", "steps", "to 1st step", "lost", "ended")]
    for attempt, lost in zip(attempts, lost_s(attempts), strict=True):
        rows.append(
            (
                str(attempt.number),
                time.strftime("%m-%d %H:%M:%S", time.localtime(attempt.started)),
                str(attempt.ranks),
                ",".join(attempt.hosts),
                f"{attempt.from_step} - {attempt.reached} ({attempt.to_step} saved)",
                f"{attempt.ready - attempt.started:.0f} s" if attempt.ready else "-",
                "-" if lost is None else f"{lost:.0f} s",
                attempt.how,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
