"""Masked reconstruction: hide patches, predict their samples.

patches (B, C, P, S) -> some patches zeroed -> backbone -> (B, C, P, d) -> head -> prediction (B, C, P, S)
                                                               (B, C, P, d) -> second head -> spectrum (B, C, P, F)
"""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn

from aar_dist.base.errors import ConfigError
from aar_dist.base.hashing import hash_torch, word
from aar_dist.models.backbone import PatchBackbone, Patches
from aar_dist.models.cost import Cost
from aar_dist.models.spectrum import log_spectrum, n_frequencies
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
    """Mean squared error of hidden patches, plus ``unmasked_loss_weight`` times that of the visible ones; with a
    ``spectral_loss_weight``, that much of the same of their spectra (:func:`log_spectrum`).

    Of the n patches of a (segment, axis) that hold anything, int(n * (1 - masking_ratio)) stay visible, at least
    one. Which ones follows from the segment's key alone: neither the batch, its padding nor the cluster matters.
    A segment with one patch or none has nothing hidden, hence no score: 0 in the loss, NaN in the metrics.
    """

    backbone: PatchBackbone

    def __init__(
        self,
        backbone: PatchBackbone,
        *,
        masking_ratio: float = 0.5,
        unmasked_loss_weight: float = 0.0,
        spectral_loss_weight: float = 0.0,
    ) -> None:
        """
        Args:
            backbone: Encoder of patches; its ``input_mode`` says whether a segment is one sample or each axis is.
            masking_ratio: Share of patches hidden.
            unmasked_loss_weight: Weight of the visible patches' error in the loss.
            spectral_loss_weight: Weight of the error in how strong each frequency of a patch is, which a second head
                predicts. How a hidden second swings can hardly be told from its neighbours, how strongly it does can.

        Raises:
            ConfigError: a value out of range, by its key.
        """
        super().__init__()
        if not 0 < masking_ratio < 1:
            raise ConfigError(f"objective.masking_ratio must lie between 0 and 1, got {masking_ratio}")
        if not unmasked_loss_weight >= 0:
            raise ConfigError(f"objective.unmasked_loss_weight must be 0 or more, got {unmasked_loss_weight}")
        if not 0 <= spectral_loss_weight < inf:
            raise ConfigError(f"objective.spectral_loss_weight must be 0 or more, got {spectral_loss_weight}")
        self.backbone = backbone
        self.masking_ratio = masking_ratio
        self.unmasked_loss_weight = unmasked_loss_weight
        self.spectral_loss_weight = spectral_loss_weight
        self.head = nn.Linear(backbone.d_embedding, backbone.patch_size, bias=False)
        self.spectral_head = (
            nn.Linear(backbone.d_embedding, n_frequencies(backbone.patch_size)) if spectral_loss_weight else None
        )

    def costs(self) -> list[Cost]:
        """Those of the backbone, and the heads at every token."""
        d, size = self.backbone.d_embedding, self.backbone.patch_size
        heads = [Cost(self.head, 2.0 * d * size)]
        if self.spectral_head:
            n = n_frequencies(size)
            heads.append(Cost(self.spectral_head, 2.0 * d * n, once=4.0 * size * n))
        costs = super().costs()
        return [*costs, *heads] if costs else []

    def forward(self, batch: SegmentBatch) -> tuple[Tensor, Metrics]:
        """Loss and metrics ``loss``, ``masked_mse``, ``unmasked_mse``, of a second head ``spectral_mse``; in eval mode
        the references too."""
        patches = self.backbone.patches(batch)
        masked = self.mask(batch, patches.present)
        tokens = self._tokens(patches, masked)
        error = _of_patches(self._samples(tokens), patches)
        mse, scored = self._mean(*error, masked)
        visible_mse, seen = self._mean(*error, ~masked)
        losses = (mse + self.unmasked_loss_weight * visible_mse) * scored
        metrics = {"masked_mse": _per_segment(mse, scored), "unmasked_mse": _per_segment(visible_mse, seen)}
        if self.spectral_head:
            error = _of_spectra(self.spectral_head(tokens).float(), patches)
            mse, whole = self._mean(*error, masked)
            visible_mse, _ = self._mean(*error, ~masked)
            losses = losses + self.spectral_loss_weight * (mse + self.unmasked_loss_weight * visible_mse) * whole
            metrics["spectral_mse"] = _per_segment(mse, whole)
        metrics = {"loss": _per_segment(losses, scored), **metrics}
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
        tensors = (
            patches.values,
            self._samples(self._tokens(patches, masked)),
            masked[..., None] & patches.valid,
            patches.valid,
        )
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

    def _tokens(self, patches: Patches, masked: Tensor) -> Tensor:
        """(B, C, P, d), of what is visible."""
        visible = patches.values.masked_fill(masked[..., None], 0.0)
        return self.backbone.encode_patches(visible, patches.present, patches.counts, patches.channel)

    def _samples(self, tokens: Tensor) -> Tensor:
        """(B, C, P, S) float32."""
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


def _of_spectra(prediction: Tensor, patches: Patches) -> tuple[Tensor, Tensor]:
    """The same over the frequencies of each patch whose samples are all valid."""
    whole = patches.valid.all(3).float()
    error = (prediction - log_spectrum(patches.values)).square().sum(3)
    return error * whole, prediction.shape[3] * whole


def _per_segment(score: Tensor, defined: Tensor) -> Tensor:
    """(B,) or (B, C) -> (B,): the mean over the axes that have a score, NaN where none has."""
    score, defined = score.detach().reshape(len(score), -1), defined.reshape(len(score), -1)
    return told((score * defined).sum(1) / defined.sum(1), defined.any(1))
