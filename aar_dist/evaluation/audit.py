"""The leak audit: is anything on both sides of a split?

    tracks -> Shared: the same samples in two recordings, or the same time of one subject -> leaks across the sides

A subject on two sides is refused when folds are made or read. What can still leak is a recording that was published
twice, under two subjects or in two data sets: its samples are found wherever they stand, shifted or not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.fingerprints import Copy, find_copies
from aar_dist.evaluation.tracks import Track
from aar_dist.training.finetuning.folds import Folds

SAMPLES, TIME = "the same samples", "the same time"
Place = tuple[str, str]
"""(data set, recording)."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A stretch that two recordings have in common."""

    what: str
    """``the same samples`` (in a sensor at least), or ``the same time`` of one subject with other samples."""
    first: Track
    second: Track
    first_s: float
    """Where in the first recording it begins [s]."""
    second_s: float
    duration_s: float

    @property
    def places(self) -> tuple[Place, Place]:
        """The two recordings."""
        return (self.first.dataset, self.first.recording), (self.second.dataset, self.second.recording)

    def __str__(self) -> str:
        ends = [
            f"{t.dataset}/{t.name} of {t.subject} from {start:g} s"
            for t, start in ((self.first, self.first_s), (self.second, self.second_s))
        ]
        return f"{' and '.join(ends)} share {self.duration_s:g} s of {self.what}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        sides = [
            {"dataset": t.dataset, "subject": t.subject, "recording": t.recording, "name": t.name, "start_s": start}
            for t, start in ((self.first, self.first_s), (self.second, self.second_s))
        ]
        return {"what": self.what, "first": sides[0], "second": sides[1], "duration_s": self.duration_s}

    @classmethod
    def from_json(cls, told: Mapping[str, Any], tracks: Mapping[Place, Track]) -> "Shared":
        """Back from :meth:`as_json`; ``tracks`` holds one of each recording."""
        first, second = told["first"], told["second"]
        return cls(
            what=told["what"],
            first=tracks[first["dataset"], first["recording"]],
            second=tracks[second["dataset"], second["recording"]],
            first_s=first["start_s"],
            second_s=second["start_s"],
            duration_s=told["duration_s"],
        )


def find_shared(tracks: Sequence[Track]) -> list[Shared]:
    """What any two recordings have in common, the longest stretch of each pair, sorted by name."""
    longest: dict[tuple[Place, Place], Shared] = {}
    for shared in [*map(_of_copy, find_copies(tracks)), *_overlaps(tracks)]:
        shared = _in_order(shared)
        other = longest.get(shared.places)
        # What holds the same samples holds the same time too, and says more.
        if other is None or (shared.what == SAMPLES, shared.duration_s) > (other.what == SAMPLES, other.duration_s):
            longest[shared.places] = shared
    return [longest[places] for places in sorted(longest)]


def leaks(shared: Sequence[Shared], side: Mapping[Place, str]) -> list[Shared]:
    """Those whose recordings stand on two sides; a recording on no side leaks nothing."""
    sides = [tuple(side.get(place) for place in s.places) for s in shared]
    return [s for s, (a, b) in zip(shared, sides, strict=True) if a and b and a != b]


def audited(
    folds: Folds, tracks: Sequence[Track], *, shared: Sequence[Shared] | None = None, allow_leaks: bool = False
) -> Folds:
    """The folds with what the audit found in ``audit``. A leak is an error that names the pair, unless it is allowed.

    Args:
        folds: By subject.
        tracks: Of all their recordings.
        shared: What :func:`find_shared` said of these tracks, where it has been asked already.
        allow_leaks: Report leaks only.
    """
    shared = find_shared(tracks) if shared is None else shared
    subject = {(t.dataset, t.recording): t.subject for t in tracks}
    unknown = sorted({name for fold in folds.folds for name in fold.side_of()} - set(subject.values()))
    if unknown:
        raise ConfigError(
            f"subject {unknown[0]} of the folds has no recording here; audit the shards they were made of"
        )
    found = []
    for number, fold in enumerate(folds.folds):
        side_of = fold.side_of()
        side = {place: side_of.get(name, "") for place, name in subject.items()}
        found += [(number, s, tuple(side[place] for place in s.places)) for s in leaks(shared, side)]
    if found and not allow_leaks:
        raise ConfigError(_told(found))
    audit = {
        "recordings": len(subject),
        "shared": [s.as_json() for s in shared],
        "leaks": [{"fold": number, "sides": list(sides), **s.as_json()} for number, s, sides in found],
    }
    return replace(folds, audit=audit)


def _told(found: Sequence[tuple[int, Shared, tuple[str, ...]]]) -> str:
    number, shared, sides = found[0]
    pairs = len({s.places for _, s, _ in found})
    more = f" (and {pairs - 1} more pairs)" if pairs > 1 else ""
    return (
        f"fold {number}: {shared}, one on the {sides[0]} and one on the {sides[1]} side{more}; convert without "
        "--keep_duplicates, give both one subject, or allow it (--allow_leaks)"
    )


def _of_copy(copy: Copy) -> Shared:
    return Shared(
        what=SAMPLES,
        first=copy.first,
        second=copy.second,
        first_s=copy.first_start / copy.first.rate_hz,
        second_s=copy.second_start / copy.second.rate_hz,
        duration_s=copy.n / copy.first.rate_hz,
    )


def _overlaps(tracks: Sequence[Track]) -> list[Shared]:
    """Recordings of one subject that share more time than one sample, by their starts."""
    one_each = {(t.dataset, t.recording): t for t in tracks if t.started}.values()
    found: list[Shared] = []
    going_on: list[Track] = []
    for second in sorted(one_each, key=lambda t: (t.subject, t.started, -t.duration_s)):
        going_on = [t for t in going_on if t.subject == second.subject and _shared_s(t, second) > 0]
        found += [_overlap(first, second) for first in going_on if _shared_s(first, second) > 1.5 / second.rate_hz]
        going_on.append(second)
    return found


def _shared_s(first: Track, second: Track) -> float:
    """Time from the start of the second to the end of the first [s]."""
    assert first.started
    assert second.started
    return (first.started + timedelta(seconds=first.duration_s) - second.started).total_seconds()


def _overlap(first: Track, second: Track) -> Shared:
    both = min(_shared_s(first, second), second.duration_s)
    start = first.duration_s - _shared_s(first, second)
    return Shared(what=TIME, first=first, second=second, first_s=start, second_s=0.0, duration_s=both)


def _in_order(s: Shared) -> Shared:
    """The recording that comes first by name first."""
    if s.places[0] <= s.places[1]:
        return s
    return replace(s, first=s.second, second=s.first, first_s=s.second_s, second_s=s.first_s)
