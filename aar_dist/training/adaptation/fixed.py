"""One phase: everything, the head alone, or the head and the last blocks."""

from collections.abc import Collection

from aar_dist.base.errors import ConfigError
from aar_dist.base.wording import many
from aar_dist.objectives.base import Objective
from aar_dist.training.adaptation.policy import Policy, always, last_blocks, names_of, union
from aar_dist.training.phases import Phase


class Full(Policy):
    """Every parameter, at the learning rate of the run."""

    def phases(self, objective: Objective, epochs: int, fresh: Collection[str] = ()) -> list[Phase]:
        """One."""
        return [Phase(name="all layers", epochs=epochs)]


class Frozen(Policy):
    """The head alone; the backbone keeps the weights it came with, but for parameters that it did not come with."""

    def phases(self, objective: Objective, epochs: int, fresh: Collection[str] = ()) -> list[Phase]:
        """One."""
        moving = always(objective, fresh)
        return [Phase(name=head_only(fresh), epochs=epochs, factors=union(objective, moving))]


class Unlocked(Policy):
    """The head and the last blocks of the backbone: the first system's ``unlocked_layers``."""

    key = "adapt.blocks"
    """What the configuration calls their number."""

    def __init__(self, *, blocks: int = 2) -> None:
        """
        Args:
            blocks: How many of the last ones move.

        Raises:
            ConfigError: fewer than one.
        """
        if blocks < 1:
            raise ConfigError(f"{self.key} must be 1 or more, got {blocks}; the head alone is adapt: frozen")
        self.blocks = blocks

    def phases(self, objective: Objective, epochs: int, fresh: Collection[str] = ()) -> list[Phase]:
        """One."""
        moving = names_of(objective, last_blocks(objective, self.blocks, self.key))
        factors = union(objective, moving, always(objective, fresh))
        return [Phase(name=with_last(self.blocks, fresh), epochs=epochs, factors=factors)]


def head_only(fresh: Collection[str]) -> str:
    """In words."""
    return "head and new channels" if fresh else "head only"


def with_last(blocks: int, fresh: Collection[str]) -> str:
    """In words."""
    last = f"last {many(blocks, 'block')}" if blocks > 1 else "last block"
    return f"{'head, new channels' if fresh else 'head'} and {last}"
