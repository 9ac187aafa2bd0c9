"""The first system's encoder: a transformer over the patches of one axis at a time.

values (B, T, C) -> patches (B, C, P, S) -> B * C sequences of P tokens -> (B, C, P, d)
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import get_args

import torch
from torch import Tensor, nn

from aar_dist.base.errors import ConfigError
from aar_dist.models.backbone import InputMode, PatchBackbone, Patches
from aar_dist.models.channels import ChannelIndex, problems
from aar_dist.models.cost import Cost
from aar_dist.models.embeddings import (
    CONV_SHORTEST_PATCH,
    ChannelEmbedding,
    EmbeddingType,
    TokenEmbedding,
    channel_embedding,
    patch_embedding,
)
from aar_dist.models.layers import HEAD_DIM, EncoderLayer
from aar_dist.models.packing import Layout, bucketed, padded, unmasked
from aar_dist.models.patching import Patching
from aar_dist.stream.batch import SegmentBatch


class AAREncoder(PatchBackbone):
    """Pre-norm transformer encoder with ``d_embedding // 64`` heads and feed-forward width ``4 * d_embedding``.

    Padding, gaps and absent channels take no part: a patch without a valid sample is attended to by nobody, and its
    token is 0. Inside a patch, a sample that is not valid is 0.
    """

    def __init__(
        self,
        *,
        d_embedding: int = 128,
        n_layers: int = 4,
        transformer_dropout: float = 0.1,
        patch_size: int = 25,
        patch_seconds: float | None = None,
        max_window_length: int = 1000,
        input_mode: InputMode = "multi",
        embedding_type: EmbeddingType = "linear",
        per_channel: bool = False,
        channels: list[str] | None = None,
        rename: dict[str, str] | None = None,
        faithful: bool = False,
    ) -> None:
        """
        Args:
            d_embedding: Width of a token; a multiple of 64.
            n_layers: Transformer layers.
            transformer_dropout: Dropout of attention weights, feed-forward and residual branches.
            patch_size: Samples of one patch.
            patch_seconds: Duration of one patch [s], at whatever rate it was recorded, resampled to ``patch_size``
                samples; None for ``patch_size`` samples as they were recorded.
            max_window_length: Longest segment in samples; there are ``max_window_length // patch_size`` positions.
            input_mode: ``multi``: a segment is one sample of the loss; ``single``: each of its axes is one.
            embedding_type: ``linear``: a matrix; ``spectral``: a matrix of the samples and of how strong each of their
                frequencies is; ``conv``: two convolutions.
            per_channel: Every channel has a patch embedding of its own; which channels there are, the stream tells.
            channels: Their names, such as ``acc.x``, where they are told here.
            rename: Name in the stream -> name here, with ``per_channel``; several may share one. A channel of a batch
                that is not among those of the model takes no part, as an absent one.
            faithful: As the first system: every segment is padded to ``max_window_length``, padding takes part in
                attention and loss, the conv embedding uses BatchNorm, and all layers start from the same weights.

        Raises:
            ConfigError: a value out of range, by its key.
        """
        super().__init__()
        self.patching = Patching(patch_size, max_window_length, patch_seconds, whole_window=faithful)
        wrong = problems(channels, per_channel=per_channel, faithful=faithful)
        _check(d_embedding, n_layers, transformer_dropout, embedding_type, self.patching, wrong)
        self.d_embedding = d_embedding
        self.patch_size = patch_size
        self.input_mode = input_mode
        self.faithful = faithful
        self.channels = None if channels is None else tuple(channels)
        self._index = None if channels is None else ChannelIndex(channels, rename)
        patch = (
            patch_embedding(embedding_type, patch_size, d_embedding, batch_norm=faithful)
            if channels is None
            else channel_embedding(embedding_type, len(channels), patch_size, d_embedding)
        )
        self.embedding = TokenEmbedding(patch, self.patching.limit, d_embedding)
        layers = [EncoderLayer(d_embedding, transformer_dropout) for _ in range(1 if faithful else n_layers)]
        self.layers = nn.ModuleList(layers + [deepcopy(layers[0]) for _ in range(n_layers - len(layers))])
        self.norm = nn.LayerNorm(d_embedding)

    def blocks(self) -> list[nn.Module]:
        """Embedding with positions, then each layer. The last k are the first system's ``unlocked_layers = k``: the
        final norm belongs to none of them and moves only when the whole backbone is trained."""
        return [self.embedding, *self.layers]

    def rename(self, names: Mapping[str, str]) -> None:
        """As :class:`ChannelIndex`."""
        if self._index:
            self._index.rename(names)

    def channel_parameters(self) -> dict[str, str]:
        """Those of the patch embedding."""
        where, patch = "embedding.patch.", self.embedding.patch
        named = patch.stacked() if isinstance(patch, ChannelEmbedding) else {}
        return {where + own: where + shared for own, shared in named.items()}

    def costs(self) -> list[Cost]:
        """The embedding; in a layer 12 d^2 weights meet a token, and two products of d every pair of tokens."""
        d = self.d_embedding
        layers = (Cost(layer, per_token=24.0 * d * d, per_pair=4.0 * d) for layer in self.layers)
        return [*self.embedding.patch.costs(self.patch_size), *layers]

    def patches(self, batch: SegmentBatch) -> Patches:
        """As many as the batch's longest segment needs; a last one may be partly recorded.

        Raises:
            ConfigError: a segment with more samples than ``max_window_length``, or more patches than positions; a
                batch without any channel that has an embedding, where each has its own.
        """
        values, valid = self.patching.cut(batch)
        if self.faithful:
            valid = torch.ones_like(valid)
        channel = None
        if self._index:
            channel = self._index.of(batch)
            valid = valid & (channel >= 0)[..., None, None]
            values = values.where(valid, 0.0)
        return Patches(values, valid, valid.any(-1), self.patching.counts(batch), channel)

    def encode_patches(
        self,
        values: Tensor,
        present: Tensor,
        counts: tuple[int, ...] | None = None,
        channel: Tensor | None = None,
    ) -> Tensor:
        """(B, C, P, S), (B, C, P) -> (B, C, P, d); ``channel`` (B, C) where each has an embedding of its own."""
        assert (channel is None) == (self.channels is None), "hand on Patches.channel"
        layout = self._layout(present.flatten(0, 1), counts)
        of = None if channel is None else layout.pack(channel.flatten()[:, None].expand(-1, present.shape[2]))
        x = self.embedding(layout.pack(values.flatten(0, 1)).to(self.norm.weight.dtype), layout, of)
        for layer in self.layers:
            x = layer(x, layout)
        tokens = layout.unpack(self.norm(x)).view(*present.shape, -1)
        return tokens if self.faithful else tokens * present[..., None]

    def _layout(self, present: Tensor, counts: tuple[int, ...] | None) -> Layout:
        """Buckets where lengths are known without waiting for a device."""
        if self.faithful:
            return unmasked(*present.shape)
        if torch.compiler.is_exporting():  # a traced program must not depend on what it was traced with
            return padded(present)
        if present.device.type == "cpu":
            return bucketed(present)
        return padded(present) if counts is None or present.is_meta else bucketed(present, counts)


KINDS: tuple[EmbeddingType, ...] = get_args(EmbeddingType)


def _check(
    d: int, n_layers: int, dropout: float, embedding_type: str, patching: Patching, further: Sequence[str]
) -> None:
    shortest = CONV_SHORTEST_PATCH if embedding_type == "conv" else 1
    rules = [
        (d > 0 and d % HEAD_DIM == 0, f"model.d_embedding must be a positive multiple of {HEAD_DIM}, got {d}"),
        (n_layers >= 1, f"model.n_layers must be at least 1, got {n_layers}"),
        (0 <= dropout < 1, f"model.transformer_dropout must lie in [0, 1), got {dropout}"),
        (embedding_type in KINDS, f"model.embedding_type must be {', '.join(KINDS)}; got {embedding_type}"),
    ]
    broken = [message for holds, message in rules if not holds] + patching.problems(shortest) + [*further]
    if broken:
        raise ConfigError("; ".join(broken))
