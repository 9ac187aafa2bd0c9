"""Masked reconstruction: hide patches, predict their samples.

patches (B, C, P, S) -> some patches zeroed -> backbone -> (B, C, P, d) -> head -> prediction (B, C, P, S)
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aar_dist.base.errors import ConfigError
from aar_dist.base.hashing import hash_torch, word
from aar_dist.models.backbone import PatchBackbone, Patches
from aar_dist.models.cost import Cost
from aar_dist.objectives.base import Metrics, Objective, told
from aar_dist.objectives.references import interpolate
from aar_dist.stream.batch import SegmentBatch

MASK = word("mask")


@dataclass(frozen=True)
class Reconstruction:
    """What the model makes of a batch: (B, T, C), as recorded, or (B, L, C) at the one rate of its patches."""

    values: Tensor
    """Float32; 0 where not valid."""
    prediction: Tensor
    """Float32, for every sample, hidden or not."""
    masked: Tensor
    """Bool: samples that were hidden from the model."""
    valid: Tensor
    """Bool: samples that count."""
    rate_hz: Tensor
    """(B,) float32: samples of these tensors in a second."""


class MaskedReconstruction(Objective):
    """Mean squared error of hidden patches, plus ``unmasked_loss_weight`` times that of the visible ones.

    Of the n patches of a (segment, axis) that hold anything, int(n * (1 - masking_ratio)) stay visible, at least
    one. Which ones follows from the segment's key alone: neither the batch, its padding nor the cluster matters.
    A segment with one patch or none has nothing hidden, hence no score: 0 in the loss, NaN in the metrics.
    """

    backbone: PatchBackbone

    def __init__(
        self, backbone: PatchBackbone, *, masking_ratio: float = 0.5, unmasked_loss_weight: float = 0.0
    ) -> None:
        """
        Args:
            backbone: Encoder of patches; its ``input_mode`` says whether a segment is one sample or each axis is.
            masking_ratio: Share of patches hidden.
            unmasked_loss_weight: Weight of the visible patches' error in the loss.

        Raises:
            ConfigError: a value out of range, by its key.
        """
        super().__init__()
        if not 0 < masking_ratio < 1:
            raise ConfigError(f"objective.masking_ratio must lie between 0 and 1, got {masking_ratio}")
        if not unmasked_loss_weight >= 0:
            raise ConfigError(f"objective.unmasked_loss_weight must be 0 or more, got {unmasked_loss_weight}")
        self.backbone = backbone
        self.masking_ratio = masking_ratio
        self.unmasked_loss_weight = unmasked_loss_weight
        self.head = nn.Linear(backbone.d_embedding, backbone.patch_size, bias=False)

    def costs(self) -> list[Cost]:
        """Those of the backbone, and the head at every token."""
        head = Cost(self.head, 2.0 * self.backbone.d_embedding * self.backbone.patch_size)
        costs = super().costs()
        return [*costs, head] if costs else []

    def forward(self, batch: SegmentBatch) -> tuple[Tensor, Metrics]:
        """Loss and metrics ``loss``, ``masked_mse``, ``unmasked_mse``; in eval mode the references too."""
        patches = self.backbone.patches(batch)
        masked = self.mask(batch, patches.present)
        error, count = _of_patches(self._predict(patches, masked), patches)
        mse, scored = self._mean(error, count, masked)
        visible_mse, seen = self._mean(error, count, ~masked)
        losses = (mse + self.unmasked_loss_weight * visible_mse) * scored
        metrics = {
            "loss": _per_segment(losses, scored),
            "masked_mse": _per_segment(mse, scored),
            "unmasked_mse": _per_segment(visible_mse, seen),
        }
        return losses.mean(), metrics if self.training else metrics | self._references(patches, masked)

    def references(self, batch: SegmentBatch) -> Metrics:
        """Scores without a model on the same hidden samples, each (B,): ``zero_mse`` predicts zero and
        ``interpolation_mse`` draws a line between the nearest visible samples."""
        patches = self.backbone.patches(batch)
        return self._references(patches, self.mask(batch, patches.present))

    @torch.no_grad()
    def reconstruct(self, batch: SegmentBatch) -> Reconstruction:
        """The batch with the model's prediction, for pictures."""
        patches = self.backbone.patches(batch)
        masked = self.mask(batch, patches.present)
        tensors = (patches.values, self._predict(patches, masked), masked[..., None] & patches.valid, patches.valid)
        length = batch.values.shape[1] if self.backbone.patching.seconds is None else None
        values, prediction, hidden, valid = (x.flatten(2).transpose(1, 2)[:, :length] for x in tensors)
        return Reconstruction(values, prediction, hidden, valid, self.backbone.patching.rate_hz(batch))

    @torch.no_grad()
    def mask(self, batch: SegmentBatch, present: Tensor) -> Tensor:
        """Which patches (B, C, P) are hidden, among those present."""
        patch = torch.arange(present.shape[2], device=present.device)
        draw = hash_torch(batch.key[:, None, None], MASK, batch.channel[:, :, None], patch)
        order = draw.masked_fill(~present, torch.iinfo(torch.int64).max).argsort(dim=2, stable=True)
        rank = torch.empty_like(order).scatter_(2, order, patch.expand_as(order))
        # In float64, so that the product is cut exactly as Python's int(n * (1 - ratio)) cuts it.
        n_visible = (present.sum(2, dtype=torch.float64) * (1 - self.masking_ratio)).long().clamp(min=1)
        return present & (rank >= n_visible[..., None])

    def _predict(self, patches: Patches, masked: Tensor) -> Tensor:
        """(B, C, P, S) float32."""
        visible = patches.values.masked_fill(masked[..., None], 0.0)
        tokens = self.backbone.encode_patches(visible, patches.present, patches.counts, patches.channel)
        prediction: Tensor = self.head(tokens)
        return prediction.float()

    @torch.no_grad()
    def _references(self, patches: Patches, masked: Tensor) -> Metrics:
        hidden = masked[..., None] & patches.valid
        line = interpolate(patches.values.flatten(2), (patches.valid & ~hidden).flatten(2)).view_as(patches.values)
        predictions = {"zero_mse": torch.zeros_like(line), "interpolation_mse": line}
        errors = {name: _of_patches(prediction, patches) for name, prediction in predictions.items()}
        return {name: _per_segment(*self._mean(*error, masked)) for name, error in errors.items()}

    def _mean(self, error: Tensor, count: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """Mean error of the samples of these patches, and whether there are any: (B,), or (B, C) in ``single`` mode.
        All (B, C, P): sums over each patch, samples in it, patches that count."""
        dims = (2,) if self.backbone.input_mode == "single" else (1, 2)
        samples = (count * where).sum(dims)
        return (error * where).sum(dims) / samples.clamp(min=1), samples > 0


def _of_patches(prediction: Tensor, patches: Patches) -> tuple[Tensor, Tensor]:
    """Squared error, summed over the valid samples of each patch, and their number: (B, C, P) float32 each."""
    valid = patches.valid.float()  # once: sums over booleans are slow
    return ((prediction - patches.values).square() * valid).sum(3), valid.sum(3)


def _per_segment(score: Tensor, defined: Tensor) -> Tensor:
    """(B,) or (B, C) -> (B,): the mean over the axes that have a score, NaN where none has."""
    score, defined = score.detach().reshape(len(score), -1), defined.reshape(len(score), -1)
    return told((score * defined).sum(1) / defined.sum(1), defined.any(1))
