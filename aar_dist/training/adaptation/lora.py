"""Low-rank adapters beside the linear layers of a frozen backbone. Hu et al. 2021, section 4.

    y = x W' + b  ->  y = x W' + b + alpha / rank * dropout(x) A' B'        A (rank, in), B (out, rank)

W and b stay; A and B are trained, and B is 0 at first, so that training begins at the stored model. At the end
W + alpha / rank * B A takes the place of W: what is published has the architecture it started from.
"""

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from aar_dist.base.errors import ConfigError
from aar_dist.base.wording import some
from aar_dist.models.dropout import Dropout
from aar_dist.objectives.base import Objective
from aar_dist.training.adaptation.policy import BACKBONE, Policy, always, names_of, union
from aar_dist.training.phases import Phase

BASE, DOWN, UP = "base", "down", "up"


class LowRank(nn.Module):
    """A linear layer with an adapter. Its weights sit in modules that are called: ZeRO-3 gathers a parameter when the
    module that owns it is."""

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.dropout = Dropout(dropout)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        y: Tensor = self.base(x) + self.scale * self.up(self.down(self.dropout(x)))
        return y


class Lora(Policy):
    """Adapters of low rank in the backbone's layers, and the head."""

    def __init__(
        self, *, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0, modules: list[str] | None = None
    ) -> None:
        """
        Args:
            rank: Of each adapter.
            alpha: The adapter counts alpha / rank.
            dropout: Of what the adapter sees.
            modules: Ends of the names of the linear layers to adapt, ``attention.qkv``; None for every linear layer of
                the backbone's repeated blocks.

        Raises:
            ConfigError: a value out of range, by its key.
        """
        if rank < 1:
            raise ConfigError(f"adapt.rank must be 1 or more, got {rank}")
        if alpha <= 0:
            raise ConfigError(f"adapt.alpha must be positive, got {alpha}")
        if not 0 <= dropout < 1:
            raise ConfigError(f"adapt.dropout must lie in [0, 1), got {dropout}")
        self.rank, self.scale, self.dropout, self.modules = rank, alpha / rank, dropout, modules

    def prepare(self, objective: Objective) -> None:
        """Put the adapters in. Their first weights come from torch's generator."""
        found = dict(_linear(objective))
        chosen = [n for n in found if self.modules is None or any(f".{n}".endswith(f".{m}") for m in self.modules)]
        missed = [m for m in self.modules or () if not any(f".{n}".endswith(f".{m}") for n in chosen)]
        if missed or not chosen:
            ends = sorted({name.split(".", 3)[-1] for name in found})
            raise ConfigError(
                f"adapt.modules: no linear layer of the backbone's blocks is called {', '.join(missed) or 'so'}; there "
                f"are {some(ends)}"
            )
        for name in chosen:
            owner, _, leaf = name.rpartition(".")
            setattr(objective.get_submodule(owner), leaf, LowRank(found[name], self.rank, self.scale, self.dropout))

    def phases(self, objective: Objective, epochs: int, fresh: Collection[str] = ()) -> list[Phase]:
        """One."""
        layers = [module for module in objective.modules() if isinstance(module, LowRank)]
        adapters = names_of(objective, [part for layer in layers for part in (layer.down, layer.up)])
        factors = union(objective, adapters, always(objective, fresh))
        return [Phase(name=f"head and adapters of rank {self.rank}", epochs=epochs, factors=factors)]

    def plain(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The adapters added to the weights beside which they stand, computed in float64."""
        made: dict[str, Tensor] = {}
        for name, value in weights.items():
            owner, _, leaf = name.rpartition(".")
            above, _, part = owner.rpartition(".")
            if f"{above}.{DOWN}.weight" not in weights:
                made[name] = value
            elif part == BASE:
                made[f"{above}.{leaf}"] = self._merged(weights, above) if leaf == "weight" else value
        return made

    def _merged(self, weights: Mapping[str, Tensor], layer: str) -> Tensor:
        base, down, up = (weights[f"{layer}.{part}.weight"] for part in (BASE, DOWN, UP))
        return torch.addmm(base.double(), up.double(), down.double(), alpha=self.scale).to(base.dtype)


def _linear(objective: Objective) -> Iterator[tuple[str, nn.Linear]]:
    """Names and linear layers of the backbone's repeated blocks."""
    inside = {id(module) for block in objective.backbone.repeated() for module in block.modules()}
    for name, module in objective.named_modules():
        if name.startswith(BACKBONE) and id(module) in inside and type(module) is nn.Linear:
            yield name, module
