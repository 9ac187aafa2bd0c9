"""When to stop because validation no longer improves.

It is a function of the validation losses alone, which metrics.jsonl holds: nothing has to be restored.
"""

import math
from collections.abc import Iterable


class Patience:
    """Counts validations in a row without a new lowest loss."""

    def __init__(self, limit: int | None, losses: Iterable[float | None] = ()) -> None:
        """
        Args:
            limit: As many as this in a row are enough; None: never.
            losses: Those of the steps before, in order; None for one that was not finite.
        """
        self.limit, self._best, self._in_a_row = limit, math.inf, 0
        for loss in losses:
            self.see(loss)

    def see(self, loss: float | None) -> None:
        """One more validation."""
        loss = loss if loss is not None and math.isfinite(loss) else math.inf
        self._in_a_row = 0 if loss < self._best else self._in_a_row + 1
        self._best = min(loss, self._best)

    @property
    def spent(self) -> bool:
        """True if it is time to stop."""
        return self.limit is not None and self._in_a_row >= self.limit
