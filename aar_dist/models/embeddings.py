"""One token for each patch.

    patches (M, S) -> (M, d)

M patches of S samples. Neither embedding has a bias: a hidden patch is all zeros, and so is its token until its
position is added.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from aar_dist.models.cost import Cost
from aar_dist.models.packing import Layout, join

EmbeddingType = Literal["linear", "conv"]

# Convolutions without bias before a normalisation of each patch by itself would forget how large the patch is
# (1 g and 0.1 g would look alike). This eps, of the order of the variance of 1 g, keeps small and large apart.
GROUP_NORM_EPS = 1.0


class LinearEmbedding(nn.Linear):
    """A matrix times the patch."""

    def __init__(self, patch_size: int, d_embedding: int) -> None:
        super().__init__(patch_size, d_embedding, bias=False)

    def costs(self, patch_size: int) -> list[Cost]:
        """Of one patch."""
        return [Cost(self, 2.0 * patch_size * self.out_features)]


class ConvEmbedding(nn.Sequential):
    """Two strided convolutions and the mean over what is left of time.

    ``batch_norm`` normalises with the statistics of the batch, as the first system does; otherwise each patch is
    normalised by itself, so that a token does not depend on the other segments of its batch.
    """

    def __init__(self, d_embedding: int, *, batch_norm: bool) -> None:
        def norm(channels: int) -> nn.Module:
            return nn.BatchNorm1d(channels) if batch_norm else nn.GroupNorm(1, channels, eps=GROUP_NORM_EPS)

        super().__init__(
            nn.Conv1d(1, d_embedding // 2, 5, stride=2, bias=False),
            norm(d_embedding // 2),
            nn.ReLU(),
            nn.Conv1d(d_embedding // 2, d_embedding, 5, stride=2, bias=False),
            norm(d_embedding),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
        )

    def costs(self, patch_size: int) -> list[Cost]:
        """Of one patch."""
        made, length = [], patch_size
        for conv in (module for module in self if isinstance(module, nn.Conv1d)):
            length = (length - conv.kernel_size[0]) // conv.stride[0] + 1
            made.append(Cost(conv, 2.0 * length * conv.kernel_size[0] * conv.in_channels * conv.out_channels))
        return made

    def forward(self, patches: Tensor) -> Tensor:
        """(M, S) -> (M, d)."""
        x = patches[:, None]
        for module in self:
            x = module(x)
        return x[..., 0]


CONV_SHORTEST_PATCH = 13
"""Samples that two convolutions of width 5 and stride 2 need."""


class TokenEmbedding(nn.Module):
    """Patch embedding plus a learned position, drawn from U(-0.02, 0.02)."""

    def __init__(self, patch: LinearEmbedding | ConvEmbedding, n_positions: int, d_embedding: int) -> None:
        super().__init__()
        self.patch: LinearEmbedding | ConvEmbedding = patch
        self.positions = nn.Parameter(torch.empty(n_positions, d_embedding).uniform_(-0.02, 0.02))

    def forward(self, patches: Tensor, layout: Layout) -> Tensor:
        """Packed patches (M, S) -> packed tokens (M, d)."""
        return join([tokens + self.positions[: tokens.shape[1]] for tokens in layout.split(self.patch(patches))])
