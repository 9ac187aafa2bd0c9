"""How separable names are in a space of vectors: does a window lie among its like?

vectors (n, d), names (n,) -> the K nearest by cosine that were kept apart -> their commonest name -> right or not
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

K = 10
Names = NDArray[np.str_]


@dataclass(frozen=True)
class Alike:
    """How often neighbours have the same name."""

    of: dict[str, float]
    """Name -> share of its windows that are given it; names that no window kept apart has are left out."""

    @property
    def right(self) -> float:
        """The mean over names, so that a frequent one counts as much as a rare one."""
        return float(np.mean([*self.of.values()]))

    @property
    def chance(self) -> float:
        """What blind choice would reach."""
        return 1 / len(self.of)


def alike(vectors: NDArray[np.float64], names: Names, apart: Names) -> Alike | None:
    """Neighbours of another ``apart`` (n,), such as the subject, are asked. None if fewer than two names could be
    found by them."""
    if len(names) < 2:
        return None
    groups, of = np.unique(names, return_inverse=True)
    kept, side = np.unique(apart, return_inverse=True)
    count = np.zeros((len(groups), len(kept)), int)
    np.add.at(count, (of, side), 1)
    findable = (count > 0).sum(1) > 1
    if findable.sum() < 2:
        return None
    said = _nearest_name(vectors, of, side, len(groups))
    return Alike({str(groups[k]): float((said[of == k] == k).mean()) for k in np.flatnonzero(findable)})


def _nearest_name(
    vectors: NDArray[np.float64], of: NDArray[np.int64], side: NDArray[np.int64], n_groups: int
) -> NDArray[np.int64]:
    """(n,) the commonest name among the nearest of other sides, the first of several; -1 where there is none."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1.0)
    near = unit @ unit.T
    near[side[:, None] == side] = -np.inf
    k = min(K, len(of) - 1)
    place = np.argpartition(-near, k - 1, axis=1)[:, :k]
    there = np.isfinite(np.take_along_axis(near, place, axis=1))
    votes = np.zeros((len(of), n_groups), int)
    np.add.at(votes, (np.arange(len(of))[:, None], of[place]), there)
    return np.where(there.any(1), votes.argmax(1), -1)
