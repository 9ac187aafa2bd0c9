"""Lower layers learn more slowly: they hold what carries over to other tasks.

factor = decay ^ (blocks between a parameter and the head): 1 for the head and for what belongs to no block, decay for
the last block, decay^n for the first of n. Clark et al. 2020 (ELECTRA), as in BEiT and MAE.
"""

from collections.abc import Collection

from aar_dist.base.errors import ConfigError
from aar_dist.objectives.base import Objective
from aar_dist.training.adaptation.policy import Policy, names_of
from aar_dist.training.phases import Phase


class LayerDecay(Policy):
    """Everything moves, each block more slowly than the one above it."""

    def __init__(self, *, decay: float = 0.75) -> None:
        """
        Args:
            decay: Factor of the learning rate from one block to the one below it.

        Raises:
            ConfigError: not above 0 and at most 1.
        """
        if not 0 < decay <= 1:
            raise ConfigError(f"adapt.decay must be above 0 and at most 1, got {decay}; 1 trains all layers alike")
        self.decay = decay

    def phases(self, objective: Objective, epochs: int, fresh: Collection[str] = ()) -> list[Phase]:
        """One. What is fresh learns at the full rate."""
        factors = dict.fromkeys(names_of(objective), 1.0)
        blocks = objective.backbone.blocks()
        for depth, block in enumerate(reversed(blocks), start=1):
            for name in names_of(objective, [block]):
                factors[name] = 1.0 if name in fresh else self.decay**depth
        return [Phase(name=f"all layers, each block at {self.decay:g} of the next", epochs=epochs, factors=factors)]
