"""Whether two methods that were tested on the same subjects differ by more than chance.

    tallies of a and of b -> each subject's results swapped or not, every way -> p of every score
    p of several pairs -> Holm -> p that holds for all of them together

If both methods were alike, nothing would change if a subject's predictions had been handed in under the other name. So
the difference that was found is set among those of all 2^S ways to swap (Fisher's exact test, on the very score that is
told, windows weighted as there). Subjects are what is swapped, not windows: windows of one animal are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from aar_dist.base.hashing import hash_np, word
from aar_dist.base.stats.intervals import LEVEL
from aar_dist.base.stats.tallies import SEED, Floats, Tallies

EXACT = 14
"""Subjects up to which all ways to swap are tried."""
SAMPLED = 20_000
"""Ways that are tried of more."""
TIE = 1e-9
"""Differences that differ by less are the same: sums in another order."""
CHUNK = 4096


@dataclass(frozen=True)
class Swapped:
    """A swap test."""

    p: float | None
    """Two-sided; None where the score is not defined."""
    name: str


def swap_test(a: Tallies, b: Tallies, seed: int = SEED) -> dict[str, Swapped]:
    """p of every score of two methods on the same subjects; exact for up to :data:`EXACT` of them."""
    assert a.subjects == b.subjects, "tested on the same subjects"
    signs, more, told = _ways(len(a.subjects), seed)
    one, other = a.sums * b.copies, b.sums * a.copies
    found = {name: a.whole[name] - b.whole[name] for name in a.whole}
    beyond = dict.fromkeys(found, 0)
    for start in range(0, len(signs), CHUNK):
        swapped = _differences(one, other, signs[start : start + CHUNK], a)
        for name, value in found.items():
            # A way that leaves a score undefined speaks against nothing: it counts as large.
            beyond[name] += int((~(np.abs(swapped[name]) < abs(value) - TIE)).sum())
    return {
        name: Swapped(None if np.isnan(found[name]) else (beyond[name] + more) / (len(signs) + more), told)
        for name in found
    }


def sign_flips(parts: Floats, seed: int = SEED) -> Swapped:
    """p of a sum of (S,) parts, one a subject, each of which might as well have the other sign."""
    signs, more, told = _ways(len(parts), seed)
    if not np.isfinite(parts).all():
        return Swapped(None, told)
    beyond = int((np.abs(signs @ parts) >= abs(parts.sum()) - TIE).sum())
    return Swapped((beyond + more) / (len(signs) + more), told.replace("swaps", "sign flips"))


def _ways(n: int, seed: int) -> tuple[NDArray[np.int8], int, str]:
    """(m, n) signs to try, how many more there are (what was found itself, where they are sampled), and in words."""
    if n <= EXACT:
        return _all_signs(n), 0, f"all swaps of {n} subjects"
    return _some_signs(n, SAMPLED, seed), 1, f"{SAMPLED:,} swaps of {n} subjects"


def _differences(one: Floats, other: Floats, signs: NDArray[np.int8], of: Tallies) -> dict[str, Floats]:
    """a - b of every score (m,), where the subjects with sign -1 are swapped."""
    both, apart = (one + other).sum(0), signs.astype(np.float64)
    half = np.tensordot(apart, one - other, axes=1)
    first, second = of.score((both + half) / 2), of.score((both - half) / 2)
    return {name: first[name] - second[name] for name in first}


def _all_signs(n: int) -> NDArray[np.int8]:
    """(2^(n - 1), n): the first subject stays; the rest of the ways are these with a and b exchanged as a whole, whose
    differences are as large."""
    number = np.arange(2 ** max(0, n - 1))[:, None]
    bits = (number >> np.maximum(np.arange(n) - 1, 0)) & 1
    bits[:, 0] = 0
    signs: NDArray[np.int8] = (1 - 2 * bits).astype(np.int8)
    return signs


def _some_signs(n: int, m: int, seed: int) -> NDArray[np.int8]:
    drawn = hash_np(seed, word("swaps"), np.arange(m)[:, None], np.arange(n)) >> np.uint64(63)
    signs: NDArray[np.int8] = np.where(drawn == 0, 1, -1).astype(np.int8)
    return signs


def least_p(n_subjects: int) -> float:
    """The smallest p that the exact test can give: with five subjects nothing is ever below 0.0625."""
    return float(2.0 ** (1 - n_subjects)) if n_subjects <= EXACT else 1 / (SAMPLED + 1)


def too_few(n_subjects: int, n_pairs: int) -> bool:
    """True if not even a difference on which all subjects agree would be told apart from chance."""
    return n_pairs * least_p(n_subjects) > 1 - LEVEL


def signed_rank(differences: Sequence[float]) -> float | None:
    """p of Wilcoxon's signed-rank test, two-sided; None where no subject differs."""
    values = np.asarray(differences, np.float64)
    values = values[np.isfinite(values) & (np.abs(values) > TIE)]
    if not len(values):
        return None
    return float(stats.wilcoxon(values, method="exact" if _distinct(values) and len(values) <= 25 else "auto").pvalue)


def _distinct(values: Floats) -> bool:
    return len(np.unique(np.abs(values))) == len(values)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p corrected for their number (Holm 1979): the chance that any of them is wrong stays below what is asked for.
    None stays None and counts for nothing."""
    known = sorted((p, k) for k, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    most = 0.0
    for rank, (p, k) in enumerate(known):
        most = max(most, min(1.0, (len(known) - rank) * p))
        corrected[k] = most
    return corrected


def resampled_t(differences: Sequence[float], test_share: float) -> dict[str, float] | None:
    """The corrected resampled t-test (Nadeau & Bengio 2003) of differences over folds and repeats, whose train sides
    overlap: their variance is taken 1 / J + n_test / n_train times instead of 1 / J.

    Args:
        differences: (J,) of each fold of each repeat.
        test_share: Share of the subjects that a fold tests, 1 / folds of one repeat.

    Returns:
        ``t`` and ``p``, two-sided; None of fewer than two, or where they are all alike.
    """
    values = np.asarray(differences, np.float64)
    if len(values) < 2 or values.std() < TIE:
        return None
    scale = 1 / len(values) + test_share / (1 - test_share)
    t = float(values.mean() / np.sqrt(scale * values.var(ddof=1)))
    return {"t": t, "p": float(2 * stats.t.sf(abs(t), len(values) - 1))}


def effect(differences: Sequence[float]) -> dict[str, float] | None:
    """Mean over standard deviation of the subjects' differences, corrected for their number (Hedges' g of pairs), with
    its 95 % interval from the large-sample error, sqrt(1 / n + g² / 2 (n - 1)), and Student's t. None of fewer than
    three subjects, or where all are alike."""
    values = np.asarray(differences, np.float64)
    values = values[np.isfinite(values)]
    n = len(values)
    if n < 3 or values.std() < TIE:
        return None
    g = (1 - 3 / (4 * (n - 1) - 1)) * float(values.mean() / values.std(ddof=1))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * float(np.sqrt(1 / n + g * g / (2 * (n - 1))))
    return {"g": g, "low": g - reach, "high": g + reach, "n": n}
