"""Activation checkpointing: a layer keeps its input, and computes the rest again when backward comes to it.

backbone.repeated() -> the same modules, whose forward keeps (M, d) instead of everything between

Same loss and gradients to the bit, dropout included: the state of the random generators is kept with the input. Names
of parameters, and so checkpoints and stored models, stay what they are.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from aar_dist.objectives.base import Objective


def recompute(objective: Objective) -> int:
    """Make the layers of an objective's backbone compute their insides twice; how many there are.

    Call it before the training engine wraps the objective. A layer that keeps running statistics is left as it is:
    computed twice, it would count its batch twice.
    """
    layers = list(recomputable(objective))
    for layer in layers:
        setattr(layer, "forward", _recomputed(layer.forward))  # noqa: B010 (mypy forbids to assign a method)
    return len(layers)


def recomputable(objective: Objective) -> Iterator[nn.Module]:
    """The layers that :func:`recompute` changes."""
    for layer in objective.backbone.repeated():
        if not any(isinstance(module, _BatchNorm) for module in layer.modules()):
            yield layer


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def again(*inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False)

    return again
