"""What a check found, and what was asked for.

Wanted -> checks -> Finding …
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["ok", "warning", "problem"]
WORST: tuple[State, ...] = ("ok", "warning", "problem")


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    check: str
    state: State
    found: str
    remedy: str = ""
    """What to do; empty where there is nothing to do."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a machine is to be fit for."""

    slots: int = 0
    """Ranks that it is to take; 0 if that was not said."""
    hosts: int = 1
    """Machines of the launch."""
    run: str | None = None
    """The run directory, if one was named."""
    shards: list[str] = field(default_factory=list)
    """Shard sets to look at."""
    port: int = 29500
    """Where the ranks meet, on the first host."""
    first: bool = True
    """True of the host that rank 0 will be on."""
    warm: bool = False
    """Compile DeepSpeed's helper if it is not there."""

    def to_dict(self) -> dict[str, Any]:
        """For another host."""
        return asdict(self)


def ok(check: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, remedy: str) -> Finding:
    """It will train, though not as well as it might."""
    return Finding(check, "warning", found, remedy)


def problem(check: str, found: str, remedy: str) -> Finding:
    """It will not train."""
    return Finding(check, "problem", found, remedy)


def worst(findings: list[Finding]) -> State:
    """The state of the whole."""
    return max((each.state for each in findings), key=WORST.index, default="ok")
