"""The class of each segment.

SegmentBatch with labels -> tokens -> PooledHead -> cross entropy, weighted by class, or by how hard a segment is
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from aar_dist.base.errors import ConfigError
from aar_dist.models.backbone import Backbone
from aar_dist.objectives.base import Metrics, Objective, told
from aar_dist.objectives.pooling import PooledHead, Pooling, grouped_tokens
from aar_dist.stream.batch import SegmentBatch


class Classification(Objective):
    """A backbone and a linear classifier of its pooled tokens."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        n_classes: int,
        n_channels: int = 3,
        pooling: Pooling = "last",
        head_dropout: float = 0.5,
        class_weights: list[float] | None = None,
        focal_gamma: float = 0.0,
    ) -> None:
        """
        Args:
            backbone: Encoder of segments.
            n_classes: Classes to tell apart.
            n_channels: Channels of a segment.
            pooling: ``last``, ``average``, ``moments`` or ``cls``, see :class:`PooledHead`.
            head_dropout: Dropout of what the linear layer sees.
            class_weights: Factor of each class's loss; None for 1.
            focal_gamma: Segments that are easy count less: the loss of one whose class has probability p is scaled by
                (1 - p)^gamma (Lin et al. 2017, eq. 4). 0 is cross entropy; they took 2.

        Raises:
            ConfigError: a value out of range, by its key.
        """
        super().__init__()
        if n_classes < 2:
            raise ConfigError(f"objective.n_classes must be 2 or more, got {n_classes}")
        if not 0 <= focal_gamma < math.inf:
            raise ConfigError(f"objective.focal_gamma must be 0 or more, got {focal_gamma}")
        if class_weights is not None:
            _check_weights(class_weights, n_classes)
        self.backbone = backbone
        self.n_classes = n_classes
        self.class_weights = class_weights
        self.focal_gamma = focal_gamma
        self.head = PooledHead(
            backbone, n_channels=n_channels, n_outputs=n_classes, pooling=pooling, dropout=head_dropout
        )

    def forward(self, batch: SegmentBatch) -> tuple[Tensor, Metrics]:
        """Loss and metrics ``loss``, ``accuracy``; a segment with label -1 counts for nothing."""
        if batch.label is None:
            raise ConfigError("the segments carry no labels; classification needs labelled windows")
        logits = self._logits(batch)
        labelled = batch.label >= 0
        label = batch.label.clamp(min=0)
        loss = F.cross_entropy(logits, label, reduction="none") * labelled
        if self.focal_gamma:
            loss = loss * focal(loss, self.focal_gamma)
        if self.class_weights is not None:
            loss = loss * logits.new_tensor(self.class_weights)[label]
        right = (logits.argmax(1) == label).float()
        return loss.mean(), {
            "loss": told(loss, labelled),
            "accuracy": right.masked_fill(~labelled, torch.nan),
        }

    @torch.no_grad()
    def predict(self, batch: SegmentBatch) -> Tensor:
        """Probabilities (B, n_classes) float32; without dropout in eval mode only."""
        return self._logits(batch).softmax(1)

    def _logits(self, batch: SegmentBatch) -> Tensor:
        outputs: Tensor = self.head(*grouped_tokens(self.backbone, batch))
        return outputs


def focal(cross_entropy: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma where -log p is given. 1 - p is floored, since the slope of a power below 1 has no bound at 0."""
    return (-torch.expm1(-cross_entropy)).clamp(min=1e-6) ** gamma


def inverse_frequency(counts: Sequence[int]) -> list[float]:
    """Weights that give every class the same share of the loss; 0 for a class without segments, 1 on average over the
    segments."""
    present = sum(n > 0 for n in counts)
    return [sum(counts) / (present * n) if n else 0.0 for n in counts]


def _check_weights(weights: Sequence[float], n_classes: int) -> None:
    if len(weights) != n_classes:
        raise ConfigError(f"objective.class_weights has {len(weights)} weights for {n_classes} classes")
    if min(weights) < 0 or max(weights) == 0:
        raise ConfigError(f"objective.class_weights must be 0 or more, and not all 0, got {list(weights)}")
