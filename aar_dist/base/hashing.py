"""Addressed randomness: integer hashes with the same bits in NumPy and torch.

    (seed, epoch, what, position, …) -> mix64 chain -> uint64 -> uniform / integer below n

Every random draw of the project is a pure function of its address; no generator is ever consumed. The finaliser
is that of SplitMix64 (Steele, Lea & Flood 2014); all arithmetic is modulo 2**64, which int64 tensors give too.
"""

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]

_M1, _M2, _GOLDEN = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _signed(x: int) -> int:
    """The int64 with the same bits as this uint64."""
    return x - (1 << 64) if x >= 1 << 63 else x


def word(name: str) -> int:
    """A 64-bit word for a name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def _mix_int(x: int) -> int:
    x = (x ^ (x >> 30)) * _M1 & _MASK
    x = (x ^ (x >> 27)) * _M2 & _MASK
    return x ^ (x >> 31)


def _mix_np(x: UInt64) -> UInt64:
    """In place."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(_M1)
    x ^= x >> np.uint64(27)
    x *= np.uint64(_M2)
    x ^= x >> np.uint64(31)
    return x


def hash_np(*words: Any) -> UInt64:
    """Hash of the words, broadcast together; each an int (any sign, modulo 2**64) or an integer array. -> uint64."""
    state: UInt64 = np.uint64(0)  # type: ignore[assignment]
    for w in words:
        state = hash_on_np(state, w)
    return state


def hash_on_np(state: UInt64, word: Any) -> UInt64:
    """One word more: ``hash_np(a, b) == hash_on_np(hash_np(a), b)``, so that a common beginning is hashed once."""
    if (
        not isinstance(state, np.ndarray) and np.ndim(word) == 0
    ):  # Python's integers: NumPy's own are ten times as slow, and warn
        return np.uint64(_mix_int((int(state) ^ int(word) & _MASK) + _GOLDEN & _MASK))  # type: ignore[return-value]
    x = np.uint64(word & _MASK) if isinstance(word, int) else np.asarray(word, np.uint64)
    mixed: UInt64 = state ^ x
    mixed += np.uint64(_GOLDEN)
    return _mix_np(mixed)


def hash_int(*words: int) -> int:
    """Hash of plain integers, as a Python int in [0, 2**64)."""
    return int(hash_np(*words))


def uniform_np(h: UInt64) -> NDArray[np.float64]:
    """Uniform in [0, 1) from the top 53 bits of a hash."""
    return (h >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal_np(h: UInt64) -> NDArray[np.float64]:
    """Standard normal from the top 53 bits of a hash, by the inverse of the distribution; never infinite."""
    quantile: NDArray[np.float64] = torch.special.ndtri(torch.from_numpy(uniform_np(h) + 2.0**-54)).numpy()
    return quantile


def below_np(h: UInt64, n: Any) -> NDArray[np.int64]:
    """An integer in [0, n) from the top 32 bits of a hash, n < 2**31; 0 where n is 0."""
    return ((h >> np.uint64(32)) * np.asarray(n).astype(np.uint64) >> np.uint64(32)).astype(np.int64)


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical right shift of int64, whose own shift keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix_torch(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(_M1)
    x = (x ^ _shift_right(x, 27)) * _signed(_M2)
    return x ^ _shift_right(x, 31)


def hash_torch(first: torch.Tensor, *words: torch.Tensor | int) -> torch.Tensor:
    """The bits of :func:`hash_np` as int64, on the device of ``first``; words broadcast together."""
    state = torch.zeros((), dtype=torch.int64, device=first.device)
    for w in (first, *words):
        x = _signed(w & _MASK) if isinstance(w, int) else w.to(torch.int64)
        state = _mix_torch((state ^ x) + _signed(_GOLDEN))
    return state
