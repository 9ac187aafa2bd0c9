"""What the training loop may ask of an objective.

SegmentBatch -> forward -> loss, metrics per segment
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from aar_dist.models.backbone import Backbone
from aar_dist.models.cost import Cost
from aar_dist.stream.batch import SegmentBatch

Metrics = dict[str, Tensor]


class Objective(nn.Module, ABC):
    """A task: owns the backbone and its heads, and is what the training engine wraps."""

    backbone: Backbone

    def costs(self) -> list[Cost]:
        """What a forward pass costs, from the input to the output; empty where that is not known. A head that sees a
        few tokens of a segment costs next to nothing, and is left out."""
        return self.backbone.costs()

    @abstractmethod
    def forward(self, batch: SegmentBatch) -> tuple[Tensor, Metrics]:
        """The loss, a float32 scalar: the mean over the B segments of each one's own loss, 0 where a segment has
        nothing to score, so that it is the same however a global batch is cut into micro-batches. And metrics,
        each (B,) float32, detached, NaN where undefined; ``loss`` always among them, and infinite where it is
        defined and not finite (:func:`told`)."""


def told(loss: Tensor, defined: Tensor) -> Tensor:
    """The loss (B,) of each segment as a metric: NaN where it is not defined, infinite where it is and no number came
    out, so that a segment that broke is not taken for one with nothing to score."""
    return loss.detach().nan_to_num(torch.inf, torch.inf, torch.inf).masked_fill(~defined, torch.nan)
