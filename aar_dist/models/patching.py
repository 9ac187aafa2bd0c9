"""Cutting a batch into patches of a number of samples, or of a number of seconds.

    SegmentBatch (B, T, C) -> [one rate] -> values and valid (B, C, P, S)

B segments, C channels, P patches of the longest segment, S samples of a patch
"""

from dataclasses import dataclass
from math import ceil, inf

import torch
from torch import Tensor
from torch.nn import functional as F

from aar_dist.base.errors import ConfigError
from aar_dist.models.resampling import n_recorded, places, resample, within
from aar_dist.stream.batch import SegmentBatch


@dataclass(frozen=True)
class Patching:
    """How long a patch is, and how many there may be. Values out of range are named by :meth:`problems`."""

    size: int
    """Samples of a patch."""
    max_window_length: int
    """Samples of the longest segment that is cut into as many patches as there may be."""
    seconds: float | None = None
    """Duration of a patch [s], resampled to ``size`` samples; None: recorded samples, whatever their rate."""
    whole_window: bool = False
    """Cut every batch into ``limit`` patches, however short its segments are."""

    @property
    def limit(self) -> int:
        """The largest number of patches."""
        return self.max_window_length // self.size

    def problems(self, shortest: int) -> list[str]:
        """What is wrong with these values, each by its key; a patch may not have fewer than ``shortest`` samples."""
        rules = [
            (
                shortest <= self.size <= self.max_window_length,
                f"model.patch_size must lie between {shortest} and model.max_window_length {self.max_window_length}, "
                f"got {self.size}",
            ),
            (
                self.seconds is None or 0 < self.seconds < inf,
                f"model.patch_seconds must be positive, or null for patches of recorded samples, got {self.seconds}",
            ),
        ]
        return [message for holds, message in rules if not holds]

    def rate_hz(self, batch: SegmentBatch) -> Tensor:
        """(B,) float32: samples of a patch in a second."""
        return batch.rate_hz if self.seconds is None else torch.full_like(batch.rate_hz, self.size / self.seconds)

    def cut(self, batch: SegmentBatch) -> tuple[Tensor, Tensor]:
        """Values, 0 where not valid, and valid: (B, C, P, S); a last patch may be partly recorded.

        Raises:
            ConfigError: a segment that is longer than all patches together.
        """
        n_patches = self._by_samples(batch) if self.seconds is None else self._by_seconds(batch)
        n_patches = self.limit if self.whole_window else n_patches
        values, valid = batch.values, batch.valid
        if self.seconds is not None:
            values, valid = resample(values, valid, self._step(batch), n_patches * self.size)
        missing = n_patches * self.size - values.shape[1]
        values = torch.where(valid, values, 0.0)
        values, valid = (F.pad(x, (0, 0, 0, missing)).transpose(1, 2) for x in (values, valid))
        shape = (*values.shape[:2], n_patches, self.size)
        return values.reshape(shape), valid.reshape(shape)

    def count(self, batch: SegmentBatch) -> Tensor:
        """(B, C) float64: patches that hold anything recorded, without cutting them. Of patches of seconds, as many as
        the recorded samples would fill if no gap were between them."""
        if self.seconds is not None:
            recorded_s = batch.valid.sum(1) / batch.rate_hz[:, None].double()
            return (recorded_s / self.seconds).mul(1e6).round().div(1e6).ceil()
        n, length, n_channels = batch.valid.shape
        valid = F.pad(batch.valid, (0, 0, 0, -length % self.size))
        return valid.reshape(n, -1, self.size, n_channels).any(2).sum(1, dtype=torch.float64)

    def counts(self, batch: SegmentBatch) -> tuple[int, ...] | None:
        """Patches of each segment, absent ones included, where the host knows the lengths."""
        known = batch.n_samples if self.seconds is None else batch.duration_s
        if known is None:
            return None
        of = {x: self.of_samples(int(x)) if self.seconds is None else self.of_duration(x) for x in set(known)}
        return tuple(self.limit if self.whole_window else of[x] for x in known)

    def of_samples(self, length: int) -> int:
        """Patches of so many samples; at least one."""
        return max(1, min(ceil(length / self.size), self.limit))

    def of_duration(self, duration_s: float) -> int:
        """Patches of a segment of this duration [s].

        Raises:
            ConfigError: more than ``limit``.
        """
        assert self.seconds is not None, "a duration in samples depends on the rate"
        n_patches = ceil(round(duration_s / self.seconds, 6))  # 2.1 s are 7 patches of 0.3 s, though not in floats
        if n_patches > self.limit:
            raise ConfigError(
                f"model.patch_seconds {self.seconds:g} makes {n_patches} patches of a segment of {duration_s:g} s, but "
                f"model.max_window_length {self.max_window_length} // model.patch_size {self.size} leaves room for "
                f"{self.limit}; set model.patch_seconds to {duration_s / self.limit:g} or more, or "
                f"data.max_window_length to {n_patches * self.size} or more"
            )
        return max(n_patches, 1)

    def _step(self, batch: SegmentBatch) -> Tensor:
        """(B,) float64: recorded samples from one sample of a patch to the next."""
        return batch.rate_hz.double() / self.rate_hz(batch)

    def _by_samples(self, batch: SegmentBatch) -> int:
        length = batch.values.shape[1]
        if length > self.max_window_length:
            raise ConfigError(
                f"model.max_window_length is {self.max_window_length} but a segment has {length} samples; "
                f"raise it to {length}, or lower data.max_window_length or data.segment_duration"
            )
        return self.of_samples(length)

    def _by_seconds(self, batch: SegmentBatch) -> int:
        if batch.duration_s is not None:
            return self.of_duration(max(batch.duration_s))
        # The lengths are read back: a GPU is waited for.
        n = n_recorded(batch.valid)
        starts = places(self._step(batch), torch.arange(self.limit + 1, device=n.device) * self.size)
        n_patches = int(within(starts, n[:, None]).sum(1).max())
        return max(n_patches, 1) if n_patches <= self.limit else self.of_duration(float((n / batch.rate_hz).max()))
