"""What every way of adapting a model must say.

objective with the stored weights -> prepare -> phases: which parameters move, how fast, for how many epochs
weights at the end -> plain -> those of the architecture that was stored

To add one: a subclass in a module of this package, and its name in :data:`NAMES`.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor, nn

from aar_dist.base.errors import ConfigError
from aar_dist.objectives.base import Objective
from aar_dist.training.phases import Phase

PACKAGE = "aar_dist.training.adaptation"
NAMES = {
    "full": f"{PACKAGE}.fixed.Full",
    "frozen": f"{PACKAGE}.fixed.Frozen",
    "unlocked": f"{PACKAGE}.fixed.Unlocked",
    "staged": f"{PACKAGE}.staged.Staged",
    "layer_decay": f"{PACKAGE}.layer_decay.LayerDecay",
    "lora": f"{PACKAGE}.lora.Lora",
}
"""What a configuration calls them."""
FULL = NAMES["full"]
BACKBONE = "backbone."


class Policy(ABC):
    """A way of adapting a model. It holds its settings and no state: a run that goes on asks it again."""

    def prepare(self, objective: Objective) -> None:  # noqa: B027 (most have nothing to change)
        """Change the modules of an objective that holds its first weights; by default nothing."""

    @abstractmethod
    def phases(self, objective: Objective, epochs: int, fresh: Collection[str] = ()) -> list[Phase]:
        """What moves, part by part. A phase trains at least what the one before it trained: then every checkpoint
        holds all that has moved so far.

        Args:
            objective: As :meth:`prepare` left it.
            epochs: What the run is given, ``train.epochs``.
            fresh: Parameters of the backbone that the stored model did not have, such as those of added channels. They
                are trained wherever the head is.

        Raises:
            ConfigError: the model is not made so; names the key.
        """

    def plain(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of the objective before :meth:`prepare`, from those after it."""
        return dict(weights)


def checked(phases: Iterable[Phase], objective: Objective) -> tuple[Phase, ...]:
    """The phases, held to what they promise. A failure is a fault of the policy."""
    made = tuple(phases)
    everything = set(names_of(objective))
    moved: set[str] = set()
    assert made, "there is a phase"
    for phase in made:
        now = everything if phase.factors is None else set(phase.factors)
        assert phase.epochs >= 1, f"{phase.name}: an epoch or more"
        assert now, f"{phase.name}: something moves"
        assert now <= everything, f"{phase.name}: {sorted(now - everything)} are no parameters"
        assert moved <= now, f"{phase.name} stops training {sorted(moved - now)[:3]}"
        moved = now
    return made


def names_of(objective: Objective, modules: Iterable[nn.Module] | None = None) -> list[str]:
    """Names of the parameters that can be trained, or of those in some of its modules; in the model's order."""
    named = {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}
    if modules is None:
        return list(named)
    inside = {id(parameter) for module in modules for parameter in module.parameters()}
    return [name for name, parameter in named.items() if id(parameter) in inside]


def always(objective: Objective, fresh: Collection[str] = ()) -> list[str]:
    """What no stored model brings: the head, and what is fresh in the backbone."""
    return [name for name in names_of(objective) if not name.startswith(BACKBONE) or name in fresh]


def last_blocks(objective: Objective, n: int, key: str) -> list[nn.Module]:
    """The last n blocks of the backbone. What belongs to no block, such as a final norm, is trained only with the
    whole backbone, as in the first system. Raises ``ConfigError`` if there are fewer."""
    blocks = objective.backbone.blocks()
    if n > len(blocks):
        raise ConfigError(
            f"{key} is {n}, but the backbone has {len(blocks)} blocks (its embedding and its layers); "
            "train everything, or fewer"
        )
    return blocks[len(blocks) - n :]


def union(objective: Objective, *parts: Collection[str]) -> dict[str, float]:
    """Factors of all that one of the parts names: 1, in the model's order."""
    wanted = {name for part in parts for name in part}
    return {name: 1.0 for name in names_of(objective) if name in wanted}
