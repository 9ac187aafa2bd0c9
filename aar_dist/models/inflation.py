"""A model of other channels than the stored one: by name, not by place.

    stored parameters (C, …) of named channels, wanted names -> parameters (K, …)

A channel that both know takes its weights along. One that only the new model knows starts from the mean over the stored
channels, plus 0.01 of standard normal noise (the mean is I3D's, Carreira & Zisserman 2017; the noise that of the
BUT PPG guide). The noise is addressed by seed, parameter and channel, so neither the order of channels nor what else
is there changes a channel's start. Of a stored model with one embedding for all, each channel starts as that one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from aar_dist.base.errors import CheckpointError
from aar_dist.base.hashing import hash_np, normal_np, word
from aar_dist.models.backbone import Backbone

Inflate = Literal["mean", "random"]
NOISE = 0.01
_NOISE = word("inflation")


@dataclass(frozen=True)
class Inflation:
    """Where the channels of a model come from."""

    stored: tuple[str, ...] | None
    """Of the stored model; None: it has one embedding for all."""
    wanted: tuple[str, ...]
    how: Inflate = "mean"

    @property
    def transferred(self) -> tuple[str, ...]:
        """Channels that take their weights along."""
        return tuple(name for name in self.wanted if name in (self.stored or ()))

    @property
    def new(self) -> tuple[str, ...]:
        """Channels that only the new model has."""
        return tuple(name for name in self.wanted if name not in (self.stored or ()))

    @property
    def left(self) -> tuple[str, ...]:
        """Channels that only the stored model has."""
        return tuple(name for name in self.stored or () if name not in self.wanted)

    def __str__(self) -> str:
        mean = "the embedding of all" if self.stored is None else f"the mean of {', '.join(self.stored)}"
        parts = (
            (self.transferred, "transferred"),
            (self.new, f"from {mean if self.how == 'mean' else 'random weights'}"),
            (self.left, "left behind"),
        )
        return "; ".join(f"{', '.join(names)} {what}" for names, what in parts if names)

    def told(self) -> dict[str, Any]:
        """What a manifest says of it."""
        parts = {"transferred": self.transferred, "new": self.new, "left": self.left}
        return {"how": self.how, **{name: list(of) for name, of in parts.items()}}


def inflation_of(stored: Mapping[str, Any], wanted: Mapping[str, Any], how: Inflate = "mean") -> Inflation | None:
    """What becomes of the channels, by the arguments of both models; None where nothing has to be done."""
    if not wanted.get("channels"):
        return None
    known = stored.get("channels")
    made = Inflation(tuple(known) if known else None, tuple(wanted["channels"]), how)
    return None if made.stored == made.wanted else made


def inflate(stored: Tensor, fresh: Tensor, plan: Inflation, *, parameter: str, seed: int) -> Tensor:
    """One parameter with a dimension of channels.

    Args:
        stored: (C, …) in the order of ``plan.stored``; (…) where that is None.
        fresh: (K, …) what a new model of the wanted channels starts with: kept where ``plan.how`` is ``random``.
        plan: Which channels there are.
        parameter: Its name: every parameter has noise of its own.
        seed: Of the noise.

    Raises:
        CheckpointError: channels of another shape.
    """
    own = stored[None] if plan.stored is None else stored
    if own.shape[1:] != fresh.shape[1:] or len(own) != len(plan.stored or ("all",)):
        raise CheckpointError(
            f"{parameter} is {tuple(stored.shape)} in the stored model, and {tuple(fresh.shape)} is wanted: more than "
            "the channels differ. Set model as in its config.yaml"
        )
    known: dict[str, Tensor] = dict(zip(plan.stored or (), own, strict=False))
    mean = _mean(own, plan)

    def start(name: str, drawn: Tensor) -> Tensor:
        if name in known:
            return known[name]
        return drawn if plan.how == "random" else mean + _noise(mean, plan, parameter, name, seed)

    return torch.stack([start(*pair) for pair in zip(plan.wanted, fresh, strict=True)]).to(fresh.dtype)


def adapted(
    weights: Mapping[str, Tensor], backbone: Backbone, plan: Inflation | None, *, seed: int, prefix: str = ""
) -> dict[str, Tensor]:
    """Stored weights as this backbone needs them.

    Args:
        weights: By name.
        backbone: Fresh, with the wanted channels.
        plan: None where the weights fit as they are.
        seed: Of the noise.
        prefix: Of the backbone's parameters among the weights.
    """
    made = dict(weights)
    if plan is None:
        return made
    for name, shared in backbone.channel_parameters().items():
        at = prefix + (shared if plan.stored is None else name)
        if at not in made:
            raise CheckpointError(f"the stored model has no {at}; set model as in its config.yaml")
        fresh = backbone.get_parameter(name).detach()
        made[prefix + name] = inflate(made.pop(at), fresh, plan, parameter=name, seed=seed)
    return made


def _mean(own: Tensor, plan: Inflation) -> Tensor:
    """(…) float64 over channels by name: the same sum in whatever order they are stored."""
    names: Sequence[str] = plan.stored or ("all",)
    return own[sorted(range(len(names)), key=names.__getitem__)].double().mean(0)


def _noise(like: Tensor, plan: Inflation, parameter: str, channel: str, seed: int) -> Tensor:
    """0 where a channel starts as the embedding of all: then the model says at first what the stored one says."""
    if plan.stored is None:
        return torch.zeros_like(like)
    draws = hash_np(seed, _NOISE, word(parameter), word(channel), np.arange(like.numel()))
    return NOISE * torch.from_numpy(normal_np(draws)).view_as(like)
