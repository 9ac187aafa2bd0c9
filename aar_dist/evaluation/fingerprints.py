"""The same samples in two places, wherever in their recordings they stand.

    rows of samples -> a word each -> rolling hash of every BLOCK rows -> the smallest of every NEAR is an anchor
    anchors of all tracks -> the same anchor in two recordings -> grown as far as the samples agree

The hash of a block depends on its samples alone, so a copy has the same anchors as the original, shifted or not
(winnowing: Schleimer, Wilkerson & Aiken 2003, sec. 3). Every stretch of BLOCK + NEAR - 1 samples has one, unless
it stands still for half of each block: silence is no copy.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.hashing import UInt64, hash_np
from aar_dist.evaluation.tracks import Track

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

BLOCK = 32
NEAR = 16
"""A power of two."""
SHORTEST = BLOCK + NEAR - 1
"""Samples of the shortest stretch that is found for sure."""
READ = 1 << 18
GROW = 1 << 12
COPIES = 16
"""Of one stretch in more recordings than this, not every pair is named."""
BASE = 0x9E3779B97F4A7C15
INVERSE = pow(BASE, -1, 1 << 64)
NEVER = np.uint64(2**64 - 1)
FEW_VALUES = 8
"""A stretch of fewer different samples is no copy: coarse sensors at rest flicker between a few."""


@dataclass(frozen=True)
class Copy:
    """Samples [first_start, first_start + n) of one track are those of the second from second_start on."""

    first: Track
    second: Track
    first_start: int
    second_start: int
    n: int


Same = Callable[[Track, int, Track, int, int], Flags]
"""(first, i, second, j, n) -> (n,) whether the samples from i on are those from j on."""


def find_copies(tracks: Sequence[Track]) -> list[Copy]:
    """Every stretch of at least BLOCK moving samples that two recordings share, by track and place."""
    copies = grown(tracks, meets_of(tracks), same_bytes, BLOCK)
    return [copy for copy in copies if is_lively(copy.first, copy.first_start, copy.n)]


def meets_of(tracks: Sequence[Track]) -> Ints:
    """(m, 4) first track, second, place in each: anchors that two recordings have in common."""
    number, place, key = _all_anchors(tracks)
    order = np.lexsort((place, number, key))
    number, place, key = number[order], place[order], key[order]
    once = np.r_[True, (key[1:] != key[:-1]) | (number[1:] != number[:-1])][: len(key)]
    number, place, key = number[once], place[once], key[once]
    recording = _recordings(tracks)[number]
    meets = []
    for k in range(1, COPIES):
        at = np.flatnonzero((key[k:] == key[:-k]) & (recording[k:] != recording[:-k]))
        meets.append(np.stack([number[at], number[at + k], place[at], place[at + k]], axis=1))
    found: Ints = np.concatenate(meets)
    return found


def anchors(track: Track) -> Iterator[tuple[Ints, UInt64]]:
    """(place, hash) of the anchors of a track, READ samples at a time."""
    for start in range(0, max(track.n - BLOCK + 1, 0), READ):
        before = max(0, start - NEAR)
        words = _words(track.read(before, min(start + READ + NEAR + BLOCK, track.n)))
        hashes = _rolling(words)
        changes = np.cumsum(np.r_[0, 0, words[1:] != words[:-1]])
        still = 2 * (changes[BLOCK:] - changes[1 : len(changes) - BLOCK + 1]) < BLOCK
        hashes[still] = NEVER
        at = np.flatnonzero((_closed(hashes) == hashes) & ~still)
        at = at[(at + before >= start) & (at + before < start + READ)]
        yield at + before, hashes[at]


def _all_anchors(tracks: Sequence[Track]) -> tuple[Ints, Ints, UInt64]:
    """(track, place, hash) of all anchors."""
    found = [(np.full(len(place), i), place, key) for i, t in enumerate(tracks) for place, key in anchors(t)]
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint64))
    number, place, key = (np.concatenate(parts) for parts in zip(none, *found, strict=True))
    return number, place, key


def _recordings(tracks: Sequence[Track]) -> Ints:
    """Number of the recording of each track."""
    names: dict[tuple[str, str], int] = {}
    return np.array([names.setdefault((t.dataset, t.recording), len(names)) for t in tracks], np.int64)


def _words(values: NDArray[np.generic]) -> UInt64:
    """A word for the bytes of each row of (n, axes)."""
    columns = np.ascontiguousarray(values.T).view(f"u{values.dtype.itemsize}")
    return hash_np(*columns)


def _rolling(words: UInt64) -> UInt64:
    """(n - BLOCK + 1,) hash of the BLOCK words from each place on: Σ word · BASE^place, taken back to place 0."""
    powers, back = (np.cumprod(np.r_[np.uint64(1), np.full(len(words), b, np.uint64)]) for b in (BASE, INVERSE))
    total = np.cumsum(np.r_[np.uint64(0), words * powers[:-1]], dtype=np.uint64)
    return hash_np((total[BLOCK:] - total[:-BLOCK]) * back[: len(total) - BLOCK])


def _closed(x: UInt64) -> UInt64:
    """The largest of the minima of the windows of NEAR that hold a place: it is the place's own where it is one."""
    edge = np.full(NEAR - 1, NEVER, np.uint64)
    return _sliding(_sliding(np.r_[edge, x, edge], np.minimum), np.maximum)


def _sliding(x: UInt64, of: np.ufunc) -> UInt64:
    """The least or largest of every NEAR values, doubling the window."""
    width = 1
    while width < NEAR:
        x = of(x[width:], x[:-width])
        width *= 2
    return x


def grown(tracks: Sequence[Track], meets: Ints, same: Same, shortest: int) -> list[Copy]:
    """The places where two tracks meet, each grown to the whole stretch and told once."""
    meets = meets[np.lexsort((meets[:, 2], meets[:, 3] - meets[:, 2], meets[:, 1], meets[:, 0]))]
    copies: list[Copy] = []
    last: tuple[int, int, int, int] = (-1, -1, 0, 0)  # first, second, shift, end in the first
    for a, b, i, j in meets.tolist():
        if last[:3] == (a, b, j - i) and i < last[3]:
            continue
        before, after = (_agree(tracks[a], i, tracks[b], j, same, back=back) for back in (True, False))
        last = (a, b, j - i, i + after)
        if before + after >= shortest:
            copies.append(Copy(tracks[a], tracks[b], i - before, j - before, before + after))
    return copies


def is_lively(track: Track, start: int, n: int) -> bool:
    """Whether a stretch holds more than the few values of a sensor at rest."""
    seen = np.zeros(0, np.uint64)
    for at in range(start, start + n, GROW):  # a copy may begin with hours of rest
        seen = np.union1d(seen, _words(track.read(at, min(at + GROW, start + n))))
        if len(seen) >= FEW_VALUES:
            return True
    return False


def same_bytes(first: Track, i: int, second: Track, j: int, n: int) -> Flags:
    """Samples as stored."""
    agree: Flags = _words(first.read(i, i + n)) == _words(second.read(j, j + n))
    return agree


def _agree(first: Track, i: int, second: Track, j: int, same: Same, *, back: bool) -> int:
    """How many samples agree from these places on, or before them."""
    room = min(i, j) if back else min(first.n - i, second.n - j)
    done = 0
    while done < room:
        n = min(GROW, room - done)
        at = -done - n if back else done
        differ = np.flatnonzero(~same(first, i + at, second, j + at, n))
        if differ.size:
            return done + (n - 1 - int(differ[-1]) if back else int(differ[0]))
        done += n
    return room
