"""When a run must have saved: its own time limit, or the end of its SLURM job."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

MARGIN_S = 5.0
"""For the farewell of the ranks, and what is faster today than tomorrow."""
SLACK = 1.5
UNKNOWN_SAVE_S = 20.0
SLOW_DISK = 100e6
"""Bytes/s at which the first checkpoint is expected to be written and hashed: a run whose limit comes before it has
nothing else to go on from."""


@dataclass
class Deadline:
    """A moment, and what must fit in before it."""

    at: float | None
    """Seconds since the epoch; None: never."""
    save_s: float = UNKNOWN_SAVE_S
    """How long it takes to save."""
    measured: bool = False
    """True once ``save_s`` has been measured."""

    @classmethod
    def of(cls, limit_min: float | None, environ: Mapping[str, str] = os.environ) -> "Deadline":
        """The earlier of a limit that counts from the start of this process, and the end of the SLURM job."""
        ends = [] if limit_min is None else [psutil.Process().create_time() + 60 * limit_min]
        if environ.get("SLURM_JOB_END_TIME", "").isdecimal():
            ends.append(float(environ["SLURM_JOB_END_TIME"]))
        return cls(min(ends, default=None))

    def expect(self, checkpoint_bytes: int) -> None:
        """How large a checkpoint will be; forgotten as soon as a save has been measured."""
        if not self.measured:
            self.save_s = max(UNKNOWN_SAVE_S, checkpoint_bytes / SLOW_DISK)

    def near(self, ahead_s: float) -> bool:
        """True if another ``ahead_s`` of work, and a save, might not fit in any more."""
        return self.at is not None and time.time() + SLACK * (ahead_s + self.save_s) + MARGIN_S >= self.at
