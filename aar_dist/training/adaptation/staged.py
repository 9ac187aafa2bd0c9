"""Three stages against forgetting: the head, then the last blocks, then everything, slowly.

epochs 1 … head_only_epochs        the head, and channels that the stored model did not have
       … train.epochs              the last unfreeze_last_n blocks as well
       + full_finetune_epochs      everything at a tenth of the learning rate, if full_finetune

After a published guide to fine-tuning on wrist PPG; gradual unfreezing is Howard and Ruder 2018, section 3.3.
"""

from collections.abc import Collection

from aar_dist.base.errors import ConfigError
from aar_dist.objectives.base import Objective
from aar_dist.training.adaptation.fixed import Frozen, Unlocked
from aar_dist.training.adaptation.policy import Policy, names_of
from aar_dist.training.phases import Phase


class Staged(Policy):
    """Head first, then the last blocks, then all at a tenth of the learning rate. Each stage has a fresh optimizer."""

    def __init__(
        self,
        *,
        head_only_epochs: int = 5,
        unfreeze_last_n: int = 2,
        full_finetune: bool = False,
        full_finetune_epochs: int = 10,
        full_finetune_factor: float = 0.1,
    ) -> None:
        """
        Args:
            head_only_epochs: Epochs of the first stage, out of ``train.epochs``.
            unfreeze_last_n: Blocks of the backbone that the second stage trains.
            full_finetune: Add the third stage.
            full_finetune_epochs: Epochs of the third stage, beyond ``train.epochs``.
            full_finetune_factor: Its learning rate, in parts of ``optim.lr``.

        Raises:
            ConfigError: a value out of range, by its key.
        """
        rules = [
            (head_only_epochs >= 0, f"adapt.head_only_epochs must be 0 or more, got {head_only_epochs}"),
            (unfreeze_last_n >= 1, f"adapt.unfreeze_last_n must be 1 or more, got {unfreeze_last_n}"),
            (full_finetune_epochs >= 1, f"adapt.full_finetune_epochs must be 1 or more, got {full_finetune_epochs}"),
            (full_finetune_factor > 0, f"adapt.full_finetune_factor must be positive, got {full_finetune_factor}"),
        ]
        broken = [message for holds, message in rules if not holds]
        if broken:
            raise ConfigError("; ".join(broken))
        self.head_only_epochs = head_only_epochs
        self.unfreeze_last_n = unfreeze_last_n
        self.full_finetune = full_finetune
        self.full_finetune_epochs = full_finetune_epochs
        self.full_finetune_factor = full_finetune_factor

    def phases(self, objective: Objective, epochs: int, fresh: Collection[str] = ()) -> list[Phase]:
        """Those that have epochs: with fewer than ``head_only_epochs`` the head is all there is."""
        head = min(self.head_only_epochs, epochs)
        made = Frozen().phases(objective, head, fresh) if head else []
        second = Unlocked(blocks=self.unfreeze_last_n)
        second.key = "adapt.unfreeze_last_n"
        partly = second.phases(objective, epochs - head, fresh)  # a number too large is told, also where it waits
        made += partly if epochs > head else []
        if self.full_finetune:
            factors = dict.fromkeys(names_of(objective), self.full_finetune_factor)
            made.append(Phase(name="all layers", epochs=self.full_finetune_epochs, factors=factors))
        return made
