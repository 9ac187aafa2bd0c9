"""This rank's fp32 tensors inside DeepSpeed's optimizer, and which parameters lie in them.

What is leaned on has no public name in DeepSpeed 0.19; tests/training/test_resharding.py says so if it changes.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aar_dist.training.ranks import Ranks
from aar_dist.training.resharding.pieces import Piece, shares, stretches, whole
from aar_dist.training.resharding.source import MOMENTS, Source

Held = list[tuple[Tensor, list[Piece]]]
"""A tensor that the optimizer steps, and what lies in it."""


def held(optimizer: Any, stage: int, names: Mapping[nn.Parameter, str], ranks: Ranks) -> Held:
    """The tensors that this rank steps.

    Args:
        optimizer: DeepSpeed's.
        names: Of the trained parameters, in the order in which the optimizer was given them.
    """
    if stage == 0:
        tensors = [t for group in adam(optimizer).param_groups for t in group["params"]]
        pieces = whole({name: parameter.numel() for parameter, name in names.items()})
        return [(tensor, [piece]) for tensor, piece in zip(tensors, pieces, strict=True)]
    made: Held = []
    if stage == 3:
        for i, flat in enumerate(optimizer.fp32_partitioned_groups_flat):
            sizes = {names[p]: p.ds_numel for p in optimizer.fp16_groups[i]}
            made.append((flat, list(shares(sizes, ranks.world_size, ranks.rank, i))))
        return made
    for i, flat in enumerate(optimizer.single_partition_of_fp32_groups):
        sizes = {names[p]: p.numel() for p in optimizer.round_robin_bit16_groups[i]}
        begins = optimizer.round_robin_bit16_offsets[i]
        made.append((flat, list(stretches(sizes, begins, flat.numel(), ranks.rank, i))))
    return made


def adam(optimizer: Any) -> torch.optim.Optimizer:
    """Torch's optimizer inside DeepSpeed's, or itself."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


@torch.no_grad()
def fill(tensor: Tensor, pieces: list[Piece], value: Callable[[Piece], Tensor]) -> None:
    """Put the numbers of each piece where it lies."""
    line = tensor.detach().view(-1)
    for piece in pieces:
        line[piece.offset : piece.offset + piece.count] = value(piece).to(line.device)


def place_moments(optimizer: Any, tensors: Held, source: Source) -> None:
    """Give Adam its state for this rank's tensors. Filling between parameters has none, as where it was stepped."""
    if source.step is None:
        return
    inner = adam(optimizer)
    for tensor, pieces in tensors:
        state: dict[str, Tensor] = {}
        for key in MOMENTS:
            state[key] = torch.zeros_like(tensor, requires_grad=False)
            fill(state[key], pieces, partial(source.read, key))
        # Where torch keeps it: beside the weights if it steps fused.
        state["step"] = torch.tensor(source.step, device=tensor.device if inner.defaults.get("fused") else "cpu")
        inner.state[tensor] = state
