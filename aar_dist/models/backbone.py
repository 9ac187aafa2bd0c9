"""What every objective may ask of a backbone.

    SegmentBatch -> encode -> (B, n_tokens, d)

B segments, C channels, P patches of S samples, d width of a token
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from aar_dist.models.cost import Cost
from aar_dist.models.patching import Patching
from aar_dist.stream.batch import SegmentBatch

InputMode = Literal["multi", "single"]


class Backbone(nn.Module, ABC):
    """An encoder of segments. Parameters sit in submodules that are called, never in the backbone itself: ZeRO-3
    gathers a parameter when the module that owns it is called."""

    d_embedding: int
    channels: tuple[str, ...] | None = None
    """Names of the channels that have parameters of their own; None where all share theirs."""
    cls_token: int | None = None
    """Place of the token that stands for the whole segment, among those of :meth:`encode`; None where there is none."""

    @abstractmethod
    def encode(self, batch: SegmentBatch) -> Tensor:
        """(B, n_tokens, d) in the parameters' dtype; 0 at tokens that :meth:`token_valid` excludes."""

    @abstractmethod
    def token_valid(self, batch: SegmentBatch) -> Tensor:
        """(B, n_tokens) bool: tokens that stand for recorded samples. Pooling must leave the others out."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """What can be unfrozen by itself, from the input to the output."""

    def repeated(self) -> list[nn.Module]:
        """The blocks that a deep model has many of: what activation checkpointing computes twice. All but the first,
        which is the embedding."""
        return self.blocks()[1:]

    def rename(self, names: Mapping[str, str]) -> None:
        """Name in a stream -> name among ``channels``, beside those that it knows; nothing where channels are not
        found by name."""
        return

    def channel_parameters(self) -> dict[str, str]:
        """Parameters whose first dimension is ``channels``, by name, and what the parameter is called that all
        channels share in a model without channels of its own. Empty where ``channels`` is None."""
        return {}

    def costs(self) -> list[Cost]:
        """What a forward pass costs, from the input to the output; empty where that is not known."""
        return []

    def n_tokens(self, batch: SegmentBatch) -> Tensor:
        """(B, sequences) float64: tokens of each sequence that attends to itself, those of :meth:`token_valid`. The
        host waits for no device."""
        return self.token_valid(batch).sum(1, keepdim=True, dtype=torch.float64)

    def check_duration(self, duration_s: float) -> None:
        """Raise ``ConfigError`` if segments of this duration [s] do not fit; by default all do."""

    def forward(self, batch: SegmentBatch) -> Tensor:
        """:meth:`encode`."""
        return self.encode(batch)


@dataclass(frozen=True)
class Patches:
    """A batch cut into patches, each channel by itself."""

    values: Tensor
    """(B, C, P, S) float32; 0 where not valid."""
    valid: Tensor
    """(B, C, P, S) bool: samples that count in a loss."""
    present: Tensor
    """(B, C, P) bool: patches that take part, those with at least one valid sample."""
    counts: tuple[int, ...] | None = None
    """Patches of each segment, on the host; those beyond are not present. None: not known there."""
    channel: Tensor | None = None
    """(B, C) int64 which of the backbone's own channels each is, -1 absent; None where all share one embedding."""


class PatchBackbone(Backbone):
    """A backbone with one token for each (channel, patch), whose patches an objective may hide."""

    patch_size: int
    patching: Patching
    input_mode: InputMode

    @abstractmethod
    def patches(self, batch: SegmentBatch) -> Patches:
        """The batch as this backbone cuts it."""

    @abstractmethod
    def encode_patches(
        self,
        values: Tensor,
        present: Tensor,
        counts: tuple[int, ...] | None = None,
        channel: Tensor | None = None,
    ) -> Tensor:
        """Values (B, C, P, S) and patches that take part (B, C, P) -> tokens (B, C, P, d), 0 where not present.
        ``counts`` and ``channel`` as in :class:`Patches`."""

    def check_duration(self, duration_s: float) -> None:
        """Patches of seconds: no more of them than there are positions."""
        if self.patching.seconds is not None:
            self.patching.of_duration(duration_s)

    def encode(self, batch: SegmentBatch) -> Tensor:
        """(B, C * P, d), channel by channel."""
        patches = self.patches(batch)
        return self.encode_patches(patches.values, patches.present, patches.counts, patches.channel).flatten(1, 2)

    def n_tokens(self, batch: SegmentBatch) -> Tensor:
        """(B, C) float64, one sequence for each channel."""
        return self.patching.count(batch)

    def token_valid(self, batch: SegmentBatch) -> Tensor:
        """(B, C * P) bool."""
        return self.patches(batch).present.flatten(1, 2)
