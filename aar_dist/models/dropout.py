"""Dropout whose random numbers cost little on a CPU.

    torch's generator -> one seed -> 16 random bits an element -> keep or drop

torch draws a double for each element on a CPU: at p = 0.1 that was a third of a training step. Sixteen bits decide as
well (p is met to 1/131,072) and come four to a word. The seed of each call is drawn from torch's own generator, so
dropout is addressed, and repeated by activation checkpointing, as torch's is. Other devices, and compiled models, use
torch's.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LEVELS = 1 << 16
SEEDS = 1 << 62
BITWISE = {torch.bfloat16, torch.float16}


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero with probability p, else x / (1 - p); as ``F.dropout(x, p)``."""
    if p == 0.0:
        return x
    if not _ours(x):
        return F.dropout(x, p)
    dropped: Tensor = _Dropout.apply(x, p)  # type: ignore[no-untyped-call]
    return dropped


def relu_dropout(x: Tensor, p: float) -> Tensor:
    """``dropout(relu(x), p)``, which keeps nothing for its backward but its own result."""
    if p == 0.0 or not _ours(x):
        return F.dropout(F.relu(x), p) if p else F.relu(x)
    dropped: Tensor = _ReluDropout.apply(x, p)  # type: ignore[no-untyped-call]
    return dropped


class Dropout(nn.Dropout):
    """:func:`dropout` while training."""

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape."""
        return dropout(input, self.p) if self.training else input


class ReluDropout(nn.Dropout):
    """ReLU, and :func:`dropout` while training."""

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape."""
        return relu_dropout(input, self.p if self.training else 0.0)


def _ours(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _kept(x: Tensor, p: float) -> Tensor:
    """Int16 of the shape of x: all bits set where an element is kept, none where it is dropped."""
    seed = int(torch.randint(SEEDS, ()))
    words = np.random.SFC64(seed).random_raw(-(-x.numel() // 4))
    bits = torch.from_numpy(words.view(np.int16))[: x.numel()].view(x.shape)
    first_dropped = round((1.0 - p) * LEVELS) - LEVELS // 2
    if first_dropped >= LEVELS // 2:  # fewer than half a level is dropped: nothing is
        return torch.full_like(bits, -1)
    return bits.clamp_(first_dropped - 1, first_dropped).sub_(first_dropped)


def _times(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    """x * scale where it is kept, else 0. Bitwise where x is as wide as the mask, which is several times faster than
    torch's arithmetic with booleans, and scaled in float32 (1 / (1 - p) is 0.2 % off in bfloat16)."""
    if x.dtype in BITWISE:
        return (x.view(torch.int16) & kept).view(x.dtype).mul_(scale)
    return kept.to(x.dtype).mul_(-scale).mul_(x)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        kept = _kept(x, p)
        ctx.save_for_backward(kept)
        ctx.scale = 1.0 / (1.0 - p)
        return _times(x, kept, ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _times(gradient, kept, ctx.scale), None


class _ReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.scale = 1.0 / (1.0 - p)
        y = _times(F.relu(x), _kept(x, p), ctx.scale)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # The result is positive exactly where x was and was kept.
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, y, 0).mul_(ctx.scale), None
