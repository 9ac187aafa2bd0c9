"""Which parameters of a backbone are trained. Decided before the engine is made: DeepSpeed hears of no later change."""

from dataclasses import dataclass

from aar_dist.base.errors import ConfigError
from aar_dist.objectives.base import Objective


@dataclass(frozen=True, kw_only=True)
class FreezeConfig:
    """Which parts of the backbone keep the weights they came with. The head is always trained."""

    freeze_backbone: bool = False
    """Train the head alone."""
    unlocked_layers: int = 0
    """Train the last so many blocks of the backbone and the head; 0 trains everything, unless ``freeze_backbone``."""

    def __post_init__(self) -> None:
        if self.unlocked_layers < 0:
            raise ConfigError(f"freeze.unlocked_layers must be 0 or more, got {self.unlocked_layers}")
        if self.freeze_backbone and self.unlocked_layers:
            raise ConfigError(
                f"freeze.freeze_backbone freezes every layer and freeze.unlocked_layers {self.unlocked_layers} trains "
                "the last ones; give one of them"
            )

    def __str__(self) -> str:
        if self.freeze_backbone:
            return "head only"
        return f"head and last {self.unlocked_layers} blocks" if self.unlocked_layers else "all layers"


def freeze(objective: Objective, config: FreezeConfig) -> None:
    """Set ``requires_grad`` of the backbone's parameters. What belongs to no block, such as a final norm, is trained
    only with the whole backbone, as in the first system.

    Raises:
        ConfigError: more layers to unlock than there are.
    """
    blocks = objective.backbone.blocks()
    if config.unlocked_layers > len(blocks):
        raise ConfigError(
            f"freeze.unlocked_layers is {config.unlocked_layers}, but the backbone has {len(blocks)} blocks (its "
            "embedding and its layers); 0 trains everything"
        )
    if not config.freeze_backbone and config.unlocked_layers == 0:
        return
    objective.backbone.requires_grad_(False)
    for block in blocks[len(blocks) - config.unlocked_layers :]:
        block.requires_grad_(True)
