"""From the tokens of a backbone to a few numbers for each segment.

    tokens (B, G, P, d), valid (B, G, P) -> pooled (B, G, w) -> dropout -> Linear(G * w) -> (B, outputs)

B segments, G groups of tokens (the channels, where a backbone keeps them apart; else one), P tokens of a group, w = d,
or 2 d where their deviation is told too
"""

from typing import Literal

import torch
from torch import Tensor, nn

from aar_dist.base.errors import ConfigError
from aar_dist.models.backbone import Backbone, PatchBackbone
from aar_dist.stream.batch import SegmentBatch

Pooling = Literal["last", "average", "moments", "cls"]
EPS = 1e-6


class PooledHead(nn.Module):
    """One token for each channel, side by side, through dropout and a linear layer.

    Tokens that stand for nothing recorded take no part, and an absent channel gives zeros: a batch may have fewer
    channels than the head was made for.
    """

    def __init__(
        self, backbone: Backbone, *, n_channels: int, n_outputs: int, pooling: Pooling, dropout: float
    ) -> None:
        """
        Args:
            n_channels: Channels of a segment.
            pooling: ``last``: the last recorded token of each channel; ``average``: the mean over its recorded ones;
                ``moments``: their mean and, beside it, their deviation; ``cls``: the backbone's token for the whole
                segment.

        Raises:
            ConfigError: a value out of range, by its key, or a backbone without such a token.
        """
        super().__init__()
        if n_channels < 1:
            raise ConfigError(f"objective.n_channels must be 1 or more, got {n_channels}")
        if not 0 <= dropout < 1:
            raise ConfigError(f"objective.head_dropout must lie in [0, 1), got {dropout}")
        if pooling == "cls" and backbone.cls_token is None:
            raise ConfigError(
                f"objective.pooling is cls, but {type(backbone).__name__} has no token for the whole segment; "
                "use last, average or moments"
            )
        self.pooling, self.cls_token = pooling, backbone.cls_token
        self.n_groups = n_channels if isinstance(backbone, PatchBackbone) else 1
        self.dropout = nn.Dropout(dropout)
        width = backbone.d_embedding * (2 if pooling == "moments" else 1)
        self.linear = nn.Linear(self.n_groups * width, n_outputs)

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Grouped tokens (B, G, P, d) and which of them are recorded (B, G, P) -> (B, outputs) float32."""
        outputs: Tensor = self.linear(self.dropout(self.seen(tokens, valid)))
        return outputs.float()

    def seen(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """(B, G, P, d), (B, G, P) -> (B, channels * w): what the linear layer is given, channel by channel."""
        missing = self.n_groups - tokens.shape[1]
        if missing < 0:
            raise ConfigError(
                f"the model was trained on {self.n_groups} channels and a segment has {tokens.shape[1]}; choose the "
                "sensors it was trained on with data.sensors and data.kinds"
            )
        return nn.functional.pad(self.pool(tokens, valid), (0, 0, 0, missing)).flatten(1)

    def pool(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """(B, G, P, d), (B, G, P) -> (B, G, w), 0 where a group has no valid token."""
        if self.pooling == "cls":
            assert self.cls_token is not None, "checked when the head was made"
            return tokens[:, :, self.cls_token]
        return {"average": average, "moments": moments}.get(self.pooling, last)(tokens, valid)


def grouped_tokens(backbone: Backbone, batch: SegmentBatch) -> tuple[Tensor, Tensor]:
    """Tokens (B, G, P, d) and which of them are recorded (B, G, P): by channel where the backbone keeps channels
    apart, else in one group."""
    if isinstance(backbone, PatchBackbone):
        patches = backbone.patches(batch)
        tokens = backbone.encode_patches(patches.values, patches.present, patches.counts, patches.channel)
        return tokens, patches.present
    valid = backbone.token_valid(batch)
    if backbone.cls_token is not None:
        # It stands for the whole segment, for no recorded sample.
        valid = valid.clone()
        valid[:, backbone.cls_token] = False
    return backbone.encode(batch)[:, None], valid[:, None]


def last(tokens: Tensor, valid: Tensor) -> Tensor:
    """The last valid one of (…, P, d) tokens: (…, d), 0 where none is."""
    place = (valid * torch.arange(valid.shape[-1], device=valid.device)).amax(-1)
    index = place[..., None, None].expand(*place.shape, 1, tokens.shape[-1])
    return tokens.gather(-2, index)[..., 0, :] * valid.any(-1, keepdim=True)


def average(tokens: Tensor, valid: Tensor) -> Tensor:
    """The mean of the valid ones of (…, P, d) tokens: (…, d), 0 where none is."""
    total = (tokens * valid[..., None]).sum(-2)
    return total / valid.sum(-1, keepdim=True).clamp(min=1)


def moments(tokens: Tensor, valid: Tensor) -> Tensor:
    """Mean and deviation of the valid ones of (…, P, d) tokens, side by side: (…, 2 d), 0 where none is."""
    mean = average(tokens, valid)
    variance = average((tokens - mean[..., None, :]).square(), valid)
    # The root has no slope at 0, where all tokens are alike.
    return torch.cat([mean, (variance + EPS).sqrt() * valid.any(-1, keepdim=True)], dim=-1)
