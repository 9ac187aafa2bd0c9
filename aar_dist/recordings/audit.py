"""The same data twice: byte-identical recordings, and stretches of time that two recordings of a subject share.

    recordings -> [Shared(first, second, where, how long, identical)]

Neighbours that share their one boundary sample are not listed: cutting a session into files often leaves that.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.contract import read_samples
from aar_dist.recordings.recording import Recording


@dataclass(frozen=True)
class Shared:
    """Samples [first_start, first_start + n) of the first are those of the second from second_start on.

    Samples are counted on the clock of the first sensor.
    """

    first: Recording
    second: Recording
    first_start: int
    second_start: int
    n: int
    identical: bool
    """Whether the samples agree too, not only the time."""

    @property
    def duration_s(self) -> float:
        """Time recorded twice [s]."""
        return self.n / self.first.sensors[0].rate_hz


def find_duplicates_and_overlaps(recordings: Sequence[Recording]) -> list[Shared]:
    """Every pair that is byte-identical, or of one subject and shares time (two samples or more)."""
    twins = find_twins(recordings)
    seconds = {t.second.path for t in twins}
    by_subject: dict[tuple[str, str], list[Recording]] = {}
    for recording in recordings:
        if recording.path not in seconds:
            by_subject.setdefault((recording.dataset, recording.subject), []).append(recording)
    return twins + [shared for group in by_subject.values() for shared in _overlaps_of(group)]


def find_twins(recordings: Sequence[Recording]) -> list[Shared]:
    """Each recording whose samples are byte for byte those of an earlier one, beside that one."""
    seen: dict[str, Recording] = {}
    twins = []
    for recording in recordings:
        first = seen.setdefault(digest(recording), recording)
        if first is not recording:
            twins.append(Shared(first, recording, 0, 0, recording.sensors[0].n_samples, identical=True))
    return twins


def overlap(first: Recording, second: Recording) -> Shared | None:
    """What two recordings of one subject share, the first beginning first; None for a single sample or nothing."""
    begins = started(first), started(second)
    if begins[0] is None or begins[1] is None or first.location != second.location:
        return None
    rate_hz = first.sensors[0].rate_hz
    offset = (begins[1] - begins[0]).total_seconds() * rate_hz
    start = round(offset)
    n = min(first.sensors[0].n_samples - start, round(second.sensors[0].duration_s * rate_hz))
    if n < 2:
        return None
    on_grid = abs(offset - start) < 0.01
    return Shared(first, second, start, 0, n, identical=on_grid and _same_samples(first, second, start, n))


def started(recording: Recording) -> datetime | None:
    """The start of a recording, where it is known."""
    return datetime.fromisoformat(recording.start_time) if recording.start_time else None


def digest(recording: Recording) -> str:
    """Hex sha256 of the samples of all sensors, with their names, shapes and types."""
    whole = hashlib.sha256()
    for sensor in recording.sensors:
        values = read_samples(recording, sensor)
        whole.update(f"{sensor.name} {values.shape} {values.dtype.str}".encode())
        whole.update(np.ascontiguousarray(values).tobytes())
    return whole.hexdigest()


def _overlaps_of(group: Sequence[Recording]) -> Iterator[Shared]:
    """The overlaps among the recordings of one subject, by start; each meets only those that still go on."""
    going_on: list[Recording] = []
    for second in by_start(group):
        going_on = still_going_on(going_on, second)
        yield from (shared for first in going_on if (shared := overlap(first, second)))
        going_on.append(second)


def still_going_on(earlier: Sequence[Recording], at: Recording) -> list[Recording]:
    """Those of the earlier recordings that have not ended where this one starts."""
    start = started(at)
    ends = [
        (r, r.start_time and datetime.fromisoformat(r.start_time) + timedelta(seconds=r.duration_s)) for r in earlier
    ]
    return [r for r, end in ends if start and end and end > start]


def by_start(recordings: Sequence[Recording]) -> list[Recording]:
    """Those with a known start, the earliest first, and the longer of two that start together.

    RecordingError where some starts have a time zone and others have none: which of them is earlier is not known.
    """
    known = [(start, r) for r in recordings if (start := started(r)) is not None]
    zoned = next((r for start, r in known if start.tzinfo), None)
    bare = next((r for start, r in known if not start.tzinfo), None)
    if zoned and bare:
        raise RecordingError(
            f"{zoned.name} starts at {zoned.start_time}, with a time zone, and {bare.name} at {bare.start_time}, "
            f"without, both of subject {bare.subject}; give every start of a subject a time zone, or none"
        )
    return [r for _, r in sorted(known, key=lambda pair: (pair[0], -pair[1].duration_s))]


def _same_samples(first: Recording, second: Recording, start: int, n: int) -> bool:
    """Whether n samples from ``start`` of the first, at its first sensor's rate, begin the second, for every sensor."""
    clocks = [{s.name: (s.rate_hz, s.dtype, s.n_axes) for s in r.sensors} for r in (first, second)]
    if clocks[0] != clocks[1]:
        return False
    for sensor in first.sensors:
        a, b = (round(i * sensor.rate_hz / first.sensors[0].rate_hz) for i in (start, start + n))
        ours, theirs = read_samples(first, sensor, a, b), read_samples(second, sensor, 0, b - a)
        if ours.tobytes() != theirs.tobytes():
            return False
    return True
