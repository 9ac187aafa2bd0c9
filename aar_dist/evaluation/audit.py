"""The leak audit: is anything on both sides of a split?

    tracks -> Shared: the same samples in two recordings, the same time of one subject, one name in two data sets of a
    family -> leaks across the sides

A subject on two sides is refused when folds are made or read. What can still leak is a recording that was published
twice, under two subjects or in two data sets: its samples are found wherever they stand, shifted or not. And a person
may be in the training set and in the test set of one publication: the names alone tell.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import combinations
from typing import Any, Literal

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.fingerprints import Copy, find_copies
from aar_dist.evaluation.near_copies import find_near_copies
from aar_dist.evaluation.tracks import Track
from aar_dist.training.finetuning.folds import Folds

SAMPLES, TIME, NAME = "the same samples", "the same time", "the same name"
VERSION = 3
"""Of the way pairs are found: one that finds other pairs is another version."""
Namesakes = Literal["ask", "differ"]
"""Whether subjects of one name in data sets of one family may be one, or have been said to differ."""
Place = tuple[str, str]
"""(data set, recording)."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A stretch that two recordings have in common."""

    what: str
    """``the same samples`` (in a sensor at least), ``the same time`` of one subject with other samples, or ``the same
    name`` of two subjects, of whom the first recordings stand here, for 0 s."""
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

    @property
    def subjects(self) -> tuple[str, str]:
        """Whose recordings they are."""
        return self.first.subject, self.second.subject

    def __str__(self) -> str:
        if self.what == NAME:
            return f"{self.first.subject} and {self.second.subject} bear one name in data sets of one family"
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
    copies = [*find_copies(tracks), *find_near_copies(tracks)]
    for shared in [*map(_of_copy, copies), *_overlaps(tracks), *_namesakes(tracks)]:
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
    folds: Folds,
    tracks: Sequence[Track],
    *,
    shared: Sequence[Shared] | None = None,
    allow_leaks: bool = False,
    namesakes: Namesakes = "ask",
) -> Folds:
    """The folds with what the audit found in ``audit``. A leak is an error that names the pair, unless it is allowed.

    Args:
        folds: By subject.
        tracks: Of all their recordings.
        shared: What :func:`find_shared` said of these tracks, where it has been asked already.
        allow_leaks: Report leaks only.
        namesakes: ``differ``: one name in two data sets is two individuals.
    """
    shared = find_shared(tracks) if shared is None else shared
    shared = [s for s in shared if s.what != NAME or namesakes == "ask"]
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
    do = "convert without --keep_duplicates, give both one subject, or allow it (--allow_leaks)"
    if shared.what == NAME:
        do = "if they are one, keep them together (--cross_validation.group name), if not, say so (--namesakes differ)"
    return f"fold {number}: {shared}, one on the {sides[0]} and one on the {sides[1]} side{more}; {do}"


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


def _namesakes(tracks: Sequence[Track]) -> list[Shared]:
    """Subjects of one name and species in two data sets whose names begin alike: a training and a test set, two years.
    Of data sets that have nothing to do with each other every second one counts its subjects from 1."""
    one_each: dict[tuple[str, str, str], dict[str, Track]] = {}
    for t in sorted(tracks, key=lambda t: (t.dataset, t.recording, t.sensor)):
        name = t.subject.partition("/")[2]
        one_each.setdefault((family_of(t.dataset), t.species, name), {}).setdefault(t.dataset, t)
    pairs = [pair for of in one_each.values() for pair in combinations(of.values(), 2)]
    return [Shared(what=NAME, first=a, second=b, first_s=0.0, second_s=0.0, duration_s=0.0) for a, b in pairs]


def family_of(dataset: str) -> str:
    """The first word of its name: ``troika`` of ``troika_test``, ``herd`` of ``herd-2024``."""
    return re.split(r"[^a-z]", dataset.lower(), maxsplit=1)[0] or dataset


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
