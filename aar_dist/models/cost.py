"""What a model's arithmetic costs, by formula.

sequences of n tokens -> per_token * n + per_pair * n^2 floating-point operations, 2 for a multiply-add

Matrix products and convolutions count; normalisation, activation functions and additions do not, as in torch's own
counter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Cost:
    """The forward pass of one module."""

    module: nn.Module
    """Whose parameters the operations of ``per_token`` multiply by."""
    per_token: float
    """Operations with parameters."""
    per_pair: float = 0.0
    """Operations of each token with each of its sequence."""
    once: float = 0.0
    """Operations of a token's samples with constants: no gradient asks for them again."""


@dataclass(frozen=True)
class Work:
    """Operations of a forward pass, or of a forward and backward pass."""

    per_token: float
    per_pair: float

    def of(self, tokens: float, pairs: float) -> float:
        """Operations of so many tokens; ``pairs`` is the sum of n^2 over their sequences."""
        return self.per_token * tokens + self.per_pair * pairs


def forward(costs: Sequence[Cost]) -> Work:
    """One forward pass."""
    return Work(sum(cost.per_token + cost.once for cost in costs), sum(cost.per_pair for cost in costs))


def training(costs: Sequence[Cost]) -> Work:
    """Forward and backward, of modules from the input to the output; what activation checkpointing computes twice is
    counted once.

    A product with parameters costs as much again for the gradient of the parameters, where they are trained, and for
    that of its input, where anything before it is: the samples themselves need none, a layer begins with a norm. A
    product of two tokens costs both.
    """
    per_token = per_pair = 0.0
    reached = False
    for i, cost in enumerate(costs):
        trained = any(p.requires_grad for p in cost.module.parameters())
        asked = reached or (trained and i > 0)
        reached = reached or trained
        per_token += cost.per_token * (1 + trained + asked) + cost.once
        per_pair += cost.per_pair * (1 + 2 * reached)
    return Work(per_token, per_pair)
