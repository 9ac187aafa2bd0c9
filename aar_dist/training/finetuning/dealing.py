"""Subjects, or groups of them, dealt to sides so that each side has its share of every class.

names (n) with counts of each class, sizes of the sides -> shuffled by address -> swapped while that helps -> sides

What counts first is that no side keeps a class to itself that the rest needs (for a test side: the train side lacks it
then), second that the shares of all classes are close to the side's size. All sums are of integers: the same deal on
every machine. scikit-learn's StratifiedGroupKFold gives each group in turn to the side that suits it best; swapping
comes closer, and keeps the number of groups of the sides equal as well (tests/evaluation/test_folds.py compares).
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.hashing import hash_np, word

Carried = Mapping[str, Collection[str] | Mapping[str, int]]
"""Subject -> the classes it carries, or how many windows of each."""
Sides = list[list[str]]
"""Sorted names of each side."""
Ints = NDArray[np.int64]

UNIT = 1 << 16  # a whole class, in which shares are counted
NEEDED, WISHED = 1 << 50, 1 << 38
"""Price of a class that a side keeps to itself: what the rest must have, what it should have."""
STARTS, WORK = 6, 200_000  # shuffles that are tried; fewer where pairs of names are many
MOST = 2000  # names up to which pairs are swapped: of more, chance alone gives even shares


@dataclass
class _Deal:
    """Who is on which side, and what that costs. n names, K classes, F sides."""

    share: Ints
    """(n, K) of each class, in UNITs."""
    carries: Ints
    """(n, K) 1 or 0."""
    target: Ints
    """(F, 1) share of every class that a side should have."""
    price: Ints
    """(F, 1) of a class that it keeps to itself."""
    side: Ints
    """(n,)"""

    def __post_init__(self) -> None:
        n_sides = len(self.target)
        self.shares, self.carriers = (
            np.stack([of[self.side == s].sum(axis=0) for s in range(n_sides)]) for of in (self.share, self.carries)
        )
        self.all = self.carries.sum(axis=0)

    def cost(self) -> int:
        """Of all sides."""
        return int(self._cost(np.arange(len(self.target)), self.shares, self.carriers).sum())

    def _cost(self, side: Ints, shares: Ints, carriers: Ints) -> Ints:
        """Of sides with these sums (…, K)."""
        alone = (carriers == self.all) & (self.all > 0)
        costs: Ints = ((shares - self.target[side]) ** 2 + alone * self.price[side]).sum(axis=-1)
        return costs

    def improve(self, i: int) -> bool:
        """Swap a name with the one that helps most; False if none does."""
        a, b = self.side[i], self.side
        gains, moves = self.share - self.share[i], self.carries - self.carries[i]
        mine = self._cost(np.full(len(b), a), self.shares[a] + gains, self.carriers[a] + moves)
        theirs = self._cost(b, self.shares[b] - gains, self.carriers[b] - moves)
        before = self._cost(np.arange(len(self.target)), self.shares, self.carriers)
        change = np.where(b == a, 0, mine + theirs - before[a] - before[b])
        j = int(change.argmin())
        if change[j] >= 0:
            return False
        s = self.side[j]
        self.shares[a], self.shares[s] = self.shares[a] + gains[j], self.shares[s] - gains[j]
        self.carriers[a], self.carriers[s] = self.carriers[a] + moves[j], self.carriers[s] - moves[j]
        self.side[[i, j]] = s, a
        return True


def deal(
    names: Collection[str],
    carried: Carried,
    sizes: Sequence[int],
    address: Sequence[int],
    *,
    prices: Sequence[int] | None = None,
    unlike: Collection[frozenset[frozenset[str]]] = (),
) -> Sides:
    """The sides of these sizes.

    Args:
        names: What is dealt; all of it finds a side.
        carried: Classes of the names; without any, the first shuffle stands.
        sizes: Names of each side.
        address: Of the draws.
        prices: Of each side, see NEEDED and WISHED; None for NEEDED on all.
        unlike: Deals to avoid, where there is another one.
    """
    assert sum(sizes) == len(names)
    ordered = sorted(names)
    share, carries = _tables(ordered, carried)
    target = np.array(sizes, np.int64)[:, None] * UNIT // max(1, len(ordered))
    price = np.array(prices or [NEEDED] * len(sizes), np.int64)[:, None]
    made: list[tuple[bool, int, Sides]] = []
    for side in _starts(ordered, sizes, address):
        one = _Deal(share, carries, target, price, side)
        for swapping in (False, True):
            if swapping:
                _swap(one)
            sides = _sides(ordered, one.side, len(sizes))
            made.append((as_set(sides) in unlike, one.cost(), sides))
        if not share.any() and not made[-1][0]:
            break
    return min(made, key=lambda of: of[:2])[2]


def hold_out(names: Collection[str], carried: Carried, n: int, address: Sequence[int]) -> tuple[list[str], list[str]]:
    """Those that stay and the n that are held out, or fewer if the others would lose a class; at least one, though it
    were the only one with a class. Both have all classes where that can be."""
    for size in range(n, 0, -1):
        held, rest = deal(names, carried, (size, len(names) - size), address, prices=(NEEDED, WISHED))
        if size == 1 or classes_of(rest, carried) == classes_of(names, carried):
            return rest, held
    return sorted(names), []


def classes_of(names: Collection[str], carried: Carried) -> set[str]:
    """All that they carry."""
    return {name for of in names for name in carried.get(of, ())}


def as_set(sides: Sides) -> frozenset[frozenset[str]]:
    """A deal, whatever the order of its sides."""
    return frozenset(map(frozenset, sides))


def _tables(names: Sequence[str], carried: Carried) -> tuple[Ints, Ints]:
    """(n, K) share of each class, and whether it is carried."""
    classes = sorted(classes_of(names, carried))
    counted = [Counter(carried.get(name, ())) for name in names]
    counts = np.array([[of[k] for k in classes] for of in counted], np.int64).reshape(len(names), len(classes))
    return counts * UNIT // np.maximum(1, counts.sum(axis=0)), (counts > 0).astype(np.int64)


def _starts(names: Sequence[str], sizes: Sequence[int], address: Sequence[int]) -> Iterator[Ints]:
    """The side of each name after one shuffle and another."""
    keys = np.array([word(name) for name in names], np.uint64)
    side_at = np.repeat(np.arange(len(sizes)), sizes)
    for attempt in range(max(1, min(STARTS, WORK // max(1, len(names) ** 2)))):
        side = np.empty(len(names), np.int64)
        side[np.argsort(hash_np(*address, attempt, keys), kind="stable")] = side_at
        yield side


def _swap(of: _Deal) -> None:
    """Until nothing helps."""
    n = len(of.side)
    helped = n <= MOST and bool(of.share.any())
    while helped:
        helped = sum(of.improve(i) for i in range(n)) > 0


def _sides(names: Sequence[str], side: Ints, n_sides: int) -> Sides:
    return [[name for name, s in zip(names, side.tolist(), strict=True) if s == k] for k in range(n_sides)]
