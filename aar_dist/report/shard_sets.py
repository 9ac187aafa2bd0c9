"""The shard sets that a run read, if they are still where it found them.

data.shards of the configuration -> manifest -> hours, subjects, shards of each data set and split; which are simulated
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from aar_dist.base.cli import human_bytes
from aar_dist.base.errors import AarError, one_line
from aar_dist.base.remote import is_url
from aar_dist.shards.format import read_info, read_manifest
from aar_dist.shards.summary import Summary, summarize

SIMULATED = "simulated"
"""The location that recordings/simulate.py writes."""


@dataclass(frozen=True, kw_only=True)
class ShardSet:
    """What is known of one shard set today."""

    name: str
    """As the configuration has it."""
    summary: Summary | None
    problem: str
    """Why it cannot be read; empty if it can."""
    simulated: frozenset[str]
    """Data sets of it that were simulated."""

    @property
    def lines(self) -> list[list[str]]:
        """A line for each data set and split."""
        if self.summary is None:
            return []
        return [
            [
                p.dataset, p.split, str(p.subjects), f"{p.recordings:,}", f"{p.hours:.2f}",
                ", ".join(f"{s} {' and '.join(f'{r:g}' for r in rates)} Hz" for s, rates in p.sensors.items()),
                str(p.shards), human_bytes(p.bytes), f"{100 * p.spread:.2f} %",
            ]
            for p in self.summary.parts
        ]  # fmt: skip


def shard_sets(names: Sequence[str], run: Path, identity: str | None = None) -> list[ShardSet]:
    """Look at each of them; one that cannot be read, or is another by now, is told and stops nothing.

    Args:
        names: As the configuration has them.
        run: The folder of the run. A relative name may have been meant from one of the folders above it.
        identity: What the run says that it read, ``+`` between several; None where it does not say.
    """
    read = (identity or "").split("+")
    wanted = read if len(read) == len(names) and identity else [""] * len(names)
    places = [name if is_url(name) else found_from(name, run) for name in names]
    return [_as_read(_look(name, at), one) for name, at, one in zip(names, places, wanted, strict=True)]


def _as_read(found: ShardSet, wanted: str) -> ShardSet:
    """The set, or that it is not the one that was read."""
    there = found.summary.identity if found.summary else wanted
    if not wanted or there == wanted:
        return found
    problem = f"another build lies there now ({there[:12]}; {wanted[:12]} was read)"
    return ShardSet(name=found.name, summary=None, problem=problem, simulated=frozenset())


def found_from(name: str, run: Path) -> Path:
    """The path itself, or seen from the nearest folder above the run where there is one of that name."""
    places = [Path(name), *(above / name for above in run.resolve().parents)]
    return next((place for place in places if place.exists()), places[0])


def _look(name: str, place: Path | str) -> ShardSet:
    try:
        summary = summarize(place)
        table = read_manifest(place, read_info(place), ["dataset", "location"])
    except (AarError, OSError) as error:
        return ShardSet(name=name, summary=None, problem=one_line(error), simulated=frozenset())
    except pa.ArrowException as error:
        problem = f"another version of this program wrote it ({type(error).__name__})"
        return ShardSet(name=name, summary=None, problem=problem, simulated=frozenset())
    places = set(zip(table["dataset"].to_pylist(), table["location"].to_pylist(), strict=True))
    simulated = frozenset(dataset for dataset, location in places if location == SIMULATED)
    return ShardSet(name=name, summary=summary, problem="", simulated=simulated)
