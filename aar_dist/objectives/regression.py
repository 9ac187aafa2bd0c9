"""A number for each segment, such as a heart rate.

SegmentBatch with targets -> tokens -> PooledHead -> squared error in standard deviations of the target
"""

import torch
from torch import Tensor

from aar_dist.base.errors import ConfigError
from aar_dist.models.backbone import Backbone
from aar_dist.objectives.base import Metrics, Objective, told
from aar_dist.objectives.pooling import PooledHead, Pooling, grouped_tokens
from aar_dist.stream.batch import SegmentBatch


class Regression(Objective):
    """A backbone and a linear function of its pooled tokens, in units of the target."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        n_channels: int = 3,
        pooling: Pooling = "last",
        head_dropout: float = 0.5,
        target_mean: float = 0.0,
        target_std: float = 1.0,
    ) -> None:
        """
        Args:
            backbone: Encoder of segments.
            n_channels: Channels of a segment.
            pooling: ``last``, ``average``, ``moments`` or ``cls``, see :class:`PooledHead`.
            head_dropout: Dropout of what the linear layer sees.
            target_mean: Of the training targets; what the head gives is added to it, times ``target_std``.
            target_std: Of the training targets.

        Raises:
            ConfigError: a value out of range, by its key.
        """
        super().__init__()
        if not target_std > 0:
            raise ConfigError(f"objective.target_std must be positive, got {target_std}")
        self.backbone = backbone
        # Plain numbers, not buffers: a bf16 engine would round buffers.
        self.target_mean, self.target_std = target_mean, target_std
        self.head = PooledHead(backbone, n_channels=n_channels, n_outputs=1, pooling=pooling, dropout=head_dropout)

    def forward(self, batch: SegmentBatch) -> tuple[Tensor, Metrics]:
        """Loss and metrics ``loss``, ``mae`` (in units of the target); a NaN target counts for nothing."""
        if batch.label is None:
            raise ConfigError("the segments carry no targets; regression needs labelled windows")
        known = ~batch.label.isnan()
        target = (batch.label.nan_to_num(0.0) - self.target_mean) / self.target_std
        error = (self._standardised(batch) - target.float()) * known
        loss = error.square()
        return loss.mean(), {
            "loss": told(loss, known),
            "mae": (error.detach().abs() * self.target_std).masked_fill(~known, torch.nan),
        }

    @torch.no_grad()
    def predict(self, batch: SegmentBatch) -> Tensor:
        """Values (B,) float32 in units of the target; without dropout in eval mode only."""
        return self._standardised(batch) * self.target_std + self.target_mean

    def _standardised(self, batch: SegmentBatch) -> Tensor:
        outputs: Tensor = self.head(*grouped_tokens(self.backbone, batch))
        return outputs[:, 0]
