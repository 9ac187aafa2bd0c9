"""What an attempt's end means. Pure: tested without a launch.

Only the marker says that a run is finished: launchers exit with 0 after their ranks were killed, and with an error
after a run that had done all its work.
"""

from dataclasses import dataclass
from typing import Literal

from aar_dist.base.last_word import STOPPED, TIME_LIMIT, LastWord

FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 600.0


@dataclass(frozen=True)
class End:
    """How an attempt ended."""

    finished: bool
    """Its marker stands."""
    said: LastWord | None
    """What its ranks said last."""
    noticed: str
    """What the supervisor saw: a lost host, no step for too long, the launcher's exit code."""
    asked: str
    """Why the supervisor itself asked it to stop; empty if it did not."""
    progressed: bool
    """It left a newer checkpoint."""
    worked_before: bool = False
    """It made no step, though the same command had made some: not the command is wrong, but a host (a folder that is
    not mounted after it was restarted)."""

    @property
    def how(self) -> str:
        """In words, for the record and the terminal."""
        if self.finished:
            return "finished"
        if self.said is None:
            return self.asked or self.noticed
        if self.said.kind in (STOPPED, TIME_LIMIT):
            return f"stopped: {self.asked or self.said.text}"
        return f"{self.said.kind}: {self.said.text}"


@dataclass(frozen=True)
class Verdict:
    """What to do next."""

    then: Literal["done", "again", "stopped", "mistake", "give up"]
    failures: int = 0
    """Attempts in a row without progress, this one included."""
    wait_s: float = 0.0
    """Before the next one."""


def judge(end: End, failures: int, max_failures: int) -> Verdict:
    """What to do after an attempt that ended so.

    Args:
        failures: Attempts in a row without progress before it.
    """
    if end.finished:
        return Verdict("done")
    if end.asked or (end.said and end.said.kind == TIME_LIMIT):
        return Verdict("stopped")
    if end.said and not end.said.may_pass and not end.worked_before:
        return Verdict("mistake")
    if end.progressed:
        return Verdict("again")
    failures += 1
    if failures >= max_failures:
        return Verdict("give up", failures)
    return Verdict("again", failures, wait_s(failures))


def wait_s(failures: int) -> float:
    """The pause after this many attempts in a row without progress: doubled each time."""
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (failures - 1))
