"""What is exported: a stored model from the samples of a window to its answer, normalisation included.

values (B, T, C), NaN where nothing was recorded -> scaled, normalised -> SegmentBatch -> the model itself -> (B, …)
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.embed import embedding
from aar_dist.evaluation.exporting.form import Form
from aar_dist.evaluation.predict_model import window_batch
from aar_dist.models.backbone import Backbone
from aar_dist.objectives.base import Objective
from aar_dist.objectives.classification import Classification
from aar_dist.recordings.units import kind_of
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.config import DataConfig, Normalize
from aar_dist.training.finetuning.predictions import Predicts

Output = Literal["probability", "value", "embedding"]


class Embeds(nn.Module):
    """The mean token of a backbone, as ``aar-dist embed`` writes it."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def predict(self, batch: SegmentBatch) -> Tensor:
        """(B, d)."""
        return embedding(self.backbone, batch)


def answering(objective: Objective, *, embed: bool) -> tuple[Output, nn.Module]:
    """What a model says of a window, and the module that says it: a pretrained one, or any with ``embed``, its
    embedding."""
    if embed or not isinstance(objective, Predicts):
        return "embedding", Embeds(objective.backbone)
    return "probability" if isinstance(objective, Classification) else "value", objective


@dataclass(frozen=True)
class Scaling:
    """With ``normalize: dataset``: the statistics of one data set of training."""

    dataset: str
    sensor: str | None
    """The one that recordings must be of; None for those that the channels name."""
    mean: tuple[float, ...]
    """Of each channel of a window, as ``std``."""
    std: tuple[float, ...]

    @property
    def name(self) -> str:
        """As --statistics_of takes it."""
        return self.dataset if self.sensor is None else f"{self.dataset}/{self.sensor}"


def scaling_of(checkpoint: Checkpoint, data: DataConfig, form: Form, asked: str | None) -> Scaling | None:
    """The statistics that a model was trained with, None where it uses none.

    Args:
        asked: ``DATASET`` or ``DATASET/SENSOR``; None for the only one.

    Raises:
        ConfigError: none, or several and none chosen, or without a channel.
    """
    if data.normalize != "dataset":
        if asked is not None:
            raise ConfigError(
                f"--statistics_of {asked}: {checkpoint.reference} was trained with data.normalize {data.normalize} and "
                "uses none; leave it out"
            )
        return None
    told = data.statistics or {}
    dataset, _, sensor = (asked or _only_dataset(checkpoint, data)).partition("/")
    if dataset not in told:
        raise ConfigError(f"--statistics_of {dataset}: the model knows those of {', '.join(sorted(told)) or 'none'}")
    pairs, sensors = [], set()
    for channel in form.channels:
        prefix, _, axis = channel.rpartition(".")
        of = _sensor(dataset, [*told[dataset]], prefix, sensor, joint=data.sensors != "each")
        if axis not in told[dataset][of]:
            raise ConfigError(f"{checkpoint.reference}: has no statistics of {of}.{axis} of {dataset}; give another "
                              "with --statistics_of")  # fmt: skip
        pairs.append(told[dataset][of][axis])
        sensors.add(of)
    one = sensors.pop() if data.sensors == "each" else None
    return Scaling(dataset, one, tuple(mean for mean, _ in pairs), tuple(std for _, std in pairs))


def _only_dataset(checkpoint: Checkpoint, data: DataConfig) -> str:
    """Of fine-tuning, or of all training."""
    told = sorted(data.statistics or {})
    tuned = [name for name in checkpoint.manifest.get("datasets", ()) if name in told]
    known = tuned if len(tuned) == 1 else told
    if len(known) != 1:
        raise ConfigError(
            f"{checkpoint.reference}: was trained with the statistics of {', '.join(known) or 'no data set'}, an "
            "exported model takes those of one; choose it with --statistics_of"
        )
    return known[0]


def _sensor(dataset: str, sensors: list[str], prefix: str, asked: str, *, joint: bool) -> str:
    """The sensor whose statistics a channel is given."""
    fit = [name for name in sensors if name == prefix or (not joint and kind_of(name) == prefix)]
    fit = [name for name in fit if name == asked] if asked else fit
    if len(fit) == 1:
        return fit[0]
    raise ConfigError(
        f"--statistics_of {dataset}{f'/{asked}' if asked else ''}: {len(fit)} sensors {prefix}; there are "
        f"{', '.join(sensors)}; choose with --statistics_of {dataset}/SENSOR"
    )


class WindowModel(nn.Module):
    """A stored model that takes windows of one form as they were recorded."""

    scale: Tensor | None
    zero: Tensor | None
    place: Tensor | None

    def __init__(self, model: nn.Module, form: Form, normalize: Normalize, scaling: Scaling | None) -> None:
        """
        Args:
            model: One with ``predict``.
            form: Of the windows.
            normalize: Of its training; ``recording`` is left to the caller.
            scaling: Statistics for ``normalize: dataset``.
        """
        super().__init__()
        self.model, self.form, self.normalize = model, form, normalize
        self.register_buffer("channel", torch.tensor(form.index))
        # torch 2.13 loses its way where a buffer is None: what is not needed is no buffer.
        self.scale = self.zero = self.place = None
        if scaling is not None:
            mean, std = (torch.tensor(of, dtype=torch.float64) for of in (scaling.mean, scaling.std))
            self._keep(scale=(1 / std).float(), zero=(-mean / std).float())
        if None in form.columns:
            self._keep(place=_places(form))

    def _keep(self, **buffers: Tensor) -> None:
        for name, tensor in buffers.items():
            del self.__dict__[name]
            self.register_buffer(name, tensor)

    def example(self, n: int = 1) -> Tensor:
        """(n, T, C) zeros."""
        return torch.zeros(n, self.form.samples, len(self.form.channels))

    def forward(self, values: Tensor) -> Tensor:
        """(B, T, C) float32 in the units of the channels, NaN where nothing was recorded -> (B, K), (B,) or (B, d)."""
        if self.scale is not None and self.zero is not None:
            values = values * self.scale + self.zero
        if self.place is not None:
            nothing = torch.full_like(values[..., :1], torch.nan)
            values = torch.cat([values, nothing], dim=2).index_select(2, self.place)
        channel = self.get_buffer("channel")
        batch = window_batch(
            values,
            channel,
            self.form.vocabulary,
            rate_hz=self.form.rate_hz,
            duration_s=self.form.duration_s,
            normalize=self.normalize,
        )
        return cast(Predicts, self.model).predict(batch)


def _places(form: Form) -> Tensor:
    """(C,) which channel of an input each column takes, the one behind the last for none."""
    n = len(form.channels)
    order = iter(range(n))
    return torch.tensor([n if name is None else next(order) for name in form.columns])
