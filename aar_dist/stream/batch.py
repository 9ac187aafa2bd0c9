"""What the model sees.

B segments, T samples of the longest segment of the batch, C channels
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Origin:
    """Where one segment was recorded."""

    dataset: str
    subject: str
    recording: str
    sensor: str
    start_s: float


@dataclass(frozen=True, kw_only=True)
class SegmentBatch:
    """One micro-batch of segments on one device."""

    values: torch.Tensor
    """(B, T, C) float32 in the unit of the kind of sensor (acc g, gyr rad/s, mag µT, ecg mV); 0 where not valid."""
    valid: torch.Tensor
    """(B, T, C) bool; False for padding, NaN gaps and absent channels."""
    rate_hz: torch.Tensor
    """(B,) float32."""
    dataset: torch.Tensor
    """(B,) int64 index into the stream's ``datasets``."""
    channel: torch.Tensor
    """(B, C) int64 index into the stream's ``channels``; -1 absent."""
    key: torch.Tensor
    """(B,) int64 hash of (seed, epoch, position): the address of every random draw made for this segment."""
    label: torch.Tensor | None = None
    """(B,) int64 class, or float32 target."""
    origin: tuple[Origin, ...] | None = None
    """One for each segment, on request."""
    duration_s: tuple[float, ...] | None = None
    """Length of each segment [s] before it was rounded to samples, on the host; None: to be found from ``valid``."""
    n_samples: tuple[int, ...] | None = None
    """Samples of each segment, valid or not, on the host; what follows them is padding. None: to be found from
    ``valid``."""
    channels: tuple[str, ...] | None = None
    """The names that ``channel`` is an index into; None where nobody asks for them by name."""

    def __len__(self) -> int:
        return self.values.shape[0]

    def take(self, rows: Sequence[int]) -> "SegmentBatch":
        """Some of its segments, in this order."""
        cut: dict[str, Any] = {}
        for name in (f.name for f in fields(self) if f.name != "channels"):
            value = getattr(self, name)
            if value is not None:
                cut[name] = value[list(rows)] if torch.is_tensor(value) else tuple(value[i] for i in rows)
        return replace(self, **cut)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "SegmentBatch":
        """The same batch with its tensors on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {k: v.to(device, non_blocking=non_blocking) if torch.is_tensor(v) else v for k, v in moved.items()}
        return SegmentBatch(**moved)
