"""The first system's two flags for what is trained: shorthands of ways of adapting a model.

freeze.freeze_backbone    adapt: frozen
freeze.unlocked_layers k  adapt: unlocked, with k blocks; 0 is no shorthand: adapt decides
"""

from dataclasses import dataclass

from aar_dist.base.config import ClassSpec, instantiate
from aar_dist.base.errors import ConfigError
from aar_dist.training.adaptation.fixed import Frozen, Unlocked
from aar_dist.training.adaptation.policy import FULL, Policy


@dataclass(frozen=True, kw_only=True)
class FreezeConfig:
    """Which parts of the backbone keep the weights they came with. The head is always trained."""

    freeze_backbone: bool = False
    """Train the head alone."""
    unlocked_layers: int = 0
    """Train the last so many blocks of the backbone and the head; 0: as ``adapt`` says."""

    def __post_init__(self) -> None:
        if self.unlocked_layers < 0:
            raise ConfigError(f"freeze.unlocked_layers must be 0 or more, got {self.unlocked_layers}")
        if self.freeze_backbone and self.unlocked_layers:
            raise ConfigError(
                f"freeze.freeze_backbone freezes every layer and freeze.unlocked_layers {self.unlocked_layers} trains "
                "the last ones; give one of them"
            )

    @property
    def policy(self) -> Policy | None:
        """What they stand for; None if they say nothing."""
        if self.freeze_backbone:
            return Frozen()
        if not self.unlocked_layers:
            return None
        made = Unlocked(blocks=self.unlocked_layers)
        made.key = "freeze.unlocked_layers"
        return made


def policy_of(freeze: FreezeConfig, adapt: ClassSpec) -> Policy:
    """The way of adapting that the two keys choose. Raises ``ConfigError`` if they contradict."""
    if freeze.policy is None:
        return instantiate(adapt, Policy)  # type: ignore[type-abstract]
    if adapt.class_path != FULL:
        key = "freeze_backbone" if freeze.freeze_backbone else f"unlocked_layers {freeze.unlocked_layers}"
        name = adapt.class_path.rpartition(".")[2]
        raise ConfigError(
            f"freeze.{key} is a way of adapting the model, and adapt is another, {name}; give one of them"
        )
    return freeze.policy
