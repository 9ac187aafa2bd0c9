"""Predictions that need no model, for a loss to stand beside."""

import torch
from torch import Tensor


def interpolate(values: Tensor, known: Tensor) -> Tensor:
    """Every sample on the straight line between the nearest known one before and after it.

    Beyond the first and the last known sample their value is held; 0 where nothing is known.

    Args:
        values: (…, L) float.
        known: (…, L) bool.
    """
    length = values.shape[-1]
    place = torch.arange(length, device=values.device).expand_as(values)
    before = place.where(known, -1).cummax(-1).values
    after = place.where(known, length).flip(-1).cummin(-1).values.flip(-1)
    left, right = torch.where(before < 0, after, before), torch.where(after >= length, before, after)
    nothing = ~known.any(-1, keepdim=True)
    left, right = left.masked_fill(nothing, 0), right.masked_fill(nothing, 0)
    share = (place - left) / (right - left).clamp(min=1)
    line = torch.lerp(values.gather(-1, left), values.gather(-1, right), share.to(values.dtype))
    return line.masked_fill(nothing, 0.0)
