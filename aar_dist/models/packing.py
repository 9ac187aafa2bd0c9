"""Sequences of unequal length, packed so that padding costs little.

    sequences (N, P, …) -> pack -> (M, …) tokens, bucket after bucket -> unpack -> (N, P, …)

N sequences, P patches of the longest. A 10 s segment has 10 patches at 25 Hz and 40 at 100 Hz; in one batch the
short ones would be computed on at the full length. Tokens of all buckets stand in one tensor, so every layer is
called once whatever the number of buckets (which ZeRO-3 needs: ranks must call their modules alike); only the
attention goes through the buckets one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from aar_dist.stream.buffers import send

# Bucket lengths are P/4, P/2, 3P/4 and P: the usual rates (25, 50, 100 Hz) fall on them without padding.
N_BUCKETS = 4


@dataclass(frozen=True)
class Bucket:
    """Sequences that are computed at one length."""

    count: int
    length: int
    mask: Tensor | None
    """(count, 1, 1, length) bool, keys that may be attended to; None for all."""


@dataclass(frozen=True)
class Layout:
    """Where each token of a batch stands in the packed tensor."""

    shape: tuple[int, int]
    """(N, P)."""
    buckets: tuple[Bucket, ...]
    index: Tensor | None
    """(M,) places of the packed tokens among the N * P; None where they are all of them, in order."""

    def pack(self, x: Tensor) -> Tensor:
        """(N, P, …) -> (M, …)."""
        flat = x.flatten(0, 1)
        return flat if self.index is None else flat.index_select(0, self.index)

    def unpack(self, x: Tensor) -> Tensor:
        """(M, …) -> (N, P, …), 0 at places that were not packed."""
        if self.index is not None:
            x = x.new_zeros(self.shape[0] * self.shape[1], *x.shape[1:]).index_copy(0, self.index, x)
        return x.view(*self.shape, *x.shape[1:])

    def split(self, x: Tensor) -> list[Tensor]:
        """(M, …) -> views (count, length, …), one for each bucket."""
        views, start = [], 0
        for b in self.buckets:
            views.append(x[start : start + b.count * b.length].view(b.count, b.length, *x.shape[1:]))
            start += b.count * b.length
        return views


def join(parts: list[Tensor]) -> Tensor:
    """[(count, length, …)] -> (M, …); the inverse of :meth:`Layout.split`."""
    flat = [part.flatten(0, 1) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def attention_keys(present: Tensor) -> Tensor:
    """(n, L) bool -> (n, 1, 1, L) bool. A sequence with nothing present attends to all of its zeros: a row
    without any key is NaN on some attention kernels, and its output is dropped anyway."""
    return (present | ~present.any(1, keepdim=True))[:, None, None]


def padded(present: Tensor) -> Layout:
    """One bucket of the full length; never waits for the device."""
    n, p = present.shape
    return Layout((n, p), (Bucket(n, p, attention_keys(present)),), None)


def unmasked(n: int, p: int) -> Layout:
    """One bucket in which everything attends to everything."""
    return Layout((n, p), (Bucket(n, p, None),), None)


def bucketed(present: Tensor, counts: Sequence[int] | None = None) -> Layout:
    """Buckets by the last present patch; or by ``counts`` of (segments,), N a multiple of them, beyond which nothing
    is present. Without ``counts`` it reads ``present`` (N, P) on the host: for tensors on the CPU."""
    n, p = present.shape
    places, step = torch.arange(p), ceil(p / N_BUCKETS)
    last = (present * places).amax(1) if counts is None else _last(counts, n).clamp(max=p - 1)
    rows = [(last // step == b).nonzero()[:, 0] for b in range(N_BUCKETS)]
    filled = [(row, min((b + 1) * step, p)) for b, row in enumerate(rows) if len(row)]
    if len(filled) == 1 and filled[0][1] == p:
        return Layout((n, p), (_bucket(present, waits=counts is None),), None)
    index = torch.cat([(row[:, None] * p + places[:length]).flatten() for row, length in filled])
    *there, index = send([*(row for row, _ in filled), index], present.device)
    buckets = (
        _bucket(present[row, :length], waits=counts is None) for row, (_, length) in zip(there, filled, strict=True)
    )
    return Layout((n, p), tuple(buckets), index)


def _last(counts: Sequence[int], n: int) -> Tensor:
    """(n,) place of the last patch of each sequence, on the host."""
    return (torch.tensor(counts) - 1).clamp(min=0).repeat_interleave(n // len(counts))


def _bucket(present: Tensor, *, waits: bool) -> Bucket:
    """With no mask where all is present, if that may be asked."""
    keys = attention_keys(present)
    return Bucket(present.shape[0], present.shape[1], None if waits and bool(keys.all()) else keys)
