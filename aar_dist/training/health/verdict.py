"""Which rank holds up the others. Pure: where each stands -> one line.

A rank that does not answer is stopped, or its host is gone. Where all answer, the one that has come least far is waited
for. Where all stand at the same place, it is what lies between them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aar_dist.training.health.pulse import Standing

NAMED = 3


@dataclass(frozen=True)
class Place:
    """A rank's process."""

    rank: int
    host: str
    process: int
    born: float
    """When it was started [s]: process ids are used again."""

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} (process {self.process})"


def silent(places: Sequence[Place], standings: Mapping[int, Standing | None]) -> list[Place]:
    """Ranks that gave no sign of life."""
    return [place for place in places if standings.get(place.rank) is None]


def verdict(places: Sequence[Place], standings: Mapping[int, Standing | None], waited_s: float) -> str:
    """What is known, in words.

    Args:
        standings: Rank -> where it stands; None, or missing, if it did not answer.
        waited_s: Time without progress, as the rank that noticed it has waited.
    """
    start = f"no progress for {waited_s:.0f} s"
    known = {rank: standing for rank, standing in standings.items() if standing is not None}
    dead = silent(places, standings)
    if dead:
        others = f"; {_others(len(known))} in {max(known.values())}" if known else ""
        return f"{start}: {_names(dead)} gave no sign of life{others}"
    first, last = min(known.values()), max(known.values())
    if len(places) == 1:
        return f"{start}: it stands in {first}"
    if first == last:
        return f"{start}: all {len(places)} ranks stand in {first}, where they wait for each other"
    behind = [place for place in places if known[place.rank] == first]
    verb = "stands" if len(behind) == 1 else "stand"
    ahead = len(places) - len(behind)
    return f"{start}: {_names(behind)} {verb} in {first}; {_others(ahead)} in {last}"


def _others(n: int) -> str:
    return "the other one waits" if n == 1 else f"the other {n} wait"


def _names(places: Sequence[Place]) -> str:
    named = ", ".join(map(str, places[:NAMED]))
    return named + (f" and {len(places) - NAMED} more" if len(places) > NAMED else "")
