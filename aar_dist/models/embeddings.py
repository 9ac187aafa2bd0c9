"""One token for each patch.

    patches (M, S) -> (M, d)

M patches of S samples. No embedding has a bias: a hidden patch is all zeros, and so is its token until its
position is added.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from aar_dist.models.cost import Cost
from aar_dist.models.packing import Layout, join
from aar_dist.models.spectrum import log_spectrum, n_frequencies

EmbeddingType = Literal["linear", "conv", "spectral"]

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


class SpectralEmbedding(nn.Linear):
    """A matrix times the patch and, beside it, how strong each of its frequencies is."""

    def __init__(self, patch_size: int, d_embedding: int) -> None:
        super().__init__(patch_size + n_frequencies(patch_size), d_embedding, bias=False)

    def costs(self, patch_size: int) -> list[Cost]:
        """Of one patch: the matrix, and the two that make the spectrum."""
        spectrum = 4.0 * patch_size * n_frequencies(patch_size)
        return [Cost(self, 2.0 * self.in_features * self.out_features, once=spectrum)]

    def forward(self, patches: Tensor) -> Tensor:
        """(M, S) -> (M, d)."""
        tokens: Tensor = super().forward(torch.cat([patches, log_spectrum(patches).to(patches.dtype)], dim=1))
        return tokens


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


PatchEmbedding = LinearEmbedding | SpectralEmbedding | ConvEmbedding


class ChannelEmbedding(nn.Module):
    """An embedding for each of C channels: their parameters, one upon the other (C, …), in one module. So ZeRO-3
    gathers them at once, on every rank alike, whichever channels its segments have.

    A GPU is waited for once, to learn how many patches each channel has.
    """

    def __init__(self, each: Sequence[PatchEmbedding]) -> None:
        super().__init__()
        # Out of sight of the module: it lends its arithmetic, and has no parameters of its own.
        self._one = (each[0],)
        self._names = {name: name.replace(".", "_") for name, _ in each[0].named_parameters()}
        for name, own in self._names.items():
            stacked = torch.stack([one.get_parameter(name).detach() for one in each])
            self.register_parameter(own, nn.Parameter(stacked))
        each[0].to("meta")
        self.n_channels = len(each)

    def stacked(self) -> dict[str, str]:
        """Its parameters, and what each is called in an embedding that all channels share."""
        return {own: name for name, own in self._names.items()}

    def costs(self, patch_size: int) -> list[Cost]:
        """Of one patch: it meets the parameters of its channel alone."""
        costs = self._one[0].costs(patch_size)
        return [Cost(self, sum(cost.per_token for cost in costs), once=sum(cost.once for cost in costs))]

    def forward(self, patches: Tensor, channel: Tensor, layout: Layout) -> Tensor:
        """Packed patches (M, S) of these channels (M,) -> (M, d); whatever, where the channel is -1."""
        channel = channel.clamp(min=0)
        if torch.compiler.is_exporting():  # a traced program does not know how many patches a channel has
            tokens = self._all(patches)
            return tokens.gather(1, channel[:, None, None].expand(-1, 1, tokens.shape[2]))[:, 0]
        order = channel.argsort(stable=True)
        parts = torch.split(patches.index_select(0, order), self._counts(channel))
        tokens = torch.cat([self._of(c, part) for c, part in enumerate(parts)])
        return torch.empty_like(tokens).index_copy(0, order, tokens)

    def _all(self, patches: Tensor) -> Tensor:
        """(M, C, d): every patch as if it were of each channel."""
        return torch.stack([self._of(c, patches) for c in range(self.n_channels)], dim=1)

    def _of(self, c: int, patches: Tensor) -> Tensor:
        """The patches of one channel, maybe none."""
        own = {name: self.get_parameter(stacked)[c] for name, stacked in self._names.items()}
        tokens: Tensor = functional_call(self._one[0], own, (patches,))
        return tokens

    def _counts(self, channel: Tensor) -> list[int]:
        """Patches of each channel; on the meta device, which cannot be asked, all are of the first."""
        if channel.is_meta:
            return [len(channel)] + [0] * (self.n_channels - 1)
        counts: list[int] = torch.bincount(channel, minlength=self.n_channels).tolist()
        return counts


class ChannelLinear(ChannelEmbedding):
    """A matrix for each channel, ``weight`` (C, d, S). A GPU is never waited for."""

    weight: Tensor

    def forward(self, patches: Tensor, channel: Tensor, layout: Layout) -> Tensor:
        """As :class:`ChannelEmbedding`; the token is 0 where the channel is -1."""
        parts = zip(layout.split(patches), layout.split(channel), strict=True)
        return join([torch.bmm(x, self._matrices(c[:, 0])) for x, c in parts])

    def _matrices(self, channel: Tensor) -> Tensor:
        """(n,) -> (n, S, d). A product picks them: its gradient is a product too, summed in float32 and in one order,
        unlike that of indexing."""
        picked = channel[:, None] == torch.arange(self.n_channels, device=channel.device)
        matrices = picked.to(self.weight.dtype) @ self.weight.flatten(1)
        return matrices.view(channel.shape[0], *self.weight.shape[1:]).transpose(1, 2)


class TokenEmbedding(nn.Module):
    """Patch embedding plus a learned position, drawn from U(-0.02, 0.02)."""

    def __init__(self, patch: PatchEmbedding | ChannelEmbedding, n_positions: int, d_embedding: int) -> None:
        super().__init__()
        self.patch: PatchEmbedding | ChannelEmbedding = patch
        self.positions = nn.Parameter(torch.empty(n_positions, d_embedding).uniform_(-0.02, 0.02))

    def forward(self, patches: Tensor, layout: Layout, channel: Tensor | None = None) -> Tensor:
        """Packed patches (M, S), and where each channel has an embedding of its own theirs (M,) -> packed tokens
        (M, d)."""
        embedded = self.patch(patches) if channel is None else self.patch(patches, channel, layout)
        return join([tokens + self.positions[: tokens.shape[1]] for tokens in layout.split(embedded)])


def patch_embedding(kind: EmbeddingType, patch_size: int, d_embedding: int, *, batch_norm: bool) -> PatchEmbedding:
    """One embedding for all channels."""
    if kind != "conv":
        return (LinearEmbedding if kind == "linear" else SpectralEmbedding)(patch_size, d_embedding)
    return ConvEmbedding(d_embedding, batch_norm=batch_norm)


def channel_embedding(kind: EmbeddingType, n_channels: int, patch_size: int, d_embedding: int) -> ChannelEmbedding:
    """One for each channel, drawn as one for all is."""
    each = [patch_embedding(kind, patch_size, d_embedding, batch_norm=False) for _ in range(n_channels)]
    return ChannelLinear(each) if kind == "linear" else ChannelEmbedding(each)
