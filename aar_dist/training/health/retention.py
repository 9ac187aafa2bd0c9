"""Which checkpoints stay. Pure: steps and validation losses -> what to remove.

Kept are the newest, the best by validation loss, those that are pinned, and every so many steps one for ever.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aar_dist.base.errors import ConfigError

LEAST = 2
"""The newest may turn out damaged: then the one before it is all there is."""


@dataclass(frozen=True)
class Retention:
    """What is kept beside the best and the pinned."""

    keep_last: int
    """Newest ones."""
    keep_every: int | None = None
    """Each whose step is a multiple of this."""

    def check_reached(self, save_every: int) -> None:
        """Raise ``ConfigError`` if the steps to keep are not those of checkpoints."""
        if self.keep_every and self.keep_every % save_every:
            raise ConfigError(
                f"train.keep_every {self.keep_every} is no multiple of {save_every}, the steps from one checkpoint to "
                f"the next: most of those to keep would never be written; the nearest that is: "
                f"{max(1, round(self.keep_every / save_every)) * save_every}"
            )

    def doomed(self, losses: Mapping[int, float | None], pinned: Collection[int]) -> list[int]:
        """Steps of the checkpoints to remove.

        Args:
            losses: Step -> validation loss of every whole checkpoint; None or not finite: it has none.
            pinned: Steps that stay.
        """
        steps = sorted(losses)
        newest = steps[-max(self.keep_last, LEAST) :]
        return [
            step
            for step in steps
            if step not in newest
            and step not in pinned
            and step != best(losses)
            and not (self.keep_every and step % self.keep_every == 0)
        ]

    def most(self, total_steps: int) -> int:
        """Checkpoints of a run that are on the disk at one time, pinned ones aside: with the best one, and one that is
        being written."""
        return max(self.keep_last, LEAST) + 2 + (total_steps // self.keep_every if self.keep_every else 0)


def best(losses: Mapping[int, float | None]) -> int | None:
    """The step with the lowest loss, the earliest of equals; None if there is none."""
    scores = {step: loss for step, loss in losses.items() if loss is not None and math.isfinite(loss)}
    return min(scores, key=lambda step: (scores[step], step), default=None)
