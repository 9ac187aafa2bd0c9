"""What a fine-tuned model in the store needs of a recording, and how it is asked.

Checkpoint -> Predictor: windows of so many seconds, of these columns, at these rates -> (B, K) or (B, 1)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aar_dist.base.errors import CheckpointError, ConfigError
from aar_dist.evaluation.predict_statistics import TrainedStatistics
from aar_dist.models.backbone import PatchBackbone
from aar_dist.objectives.base import Objective
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.config import Normalize
from aar_dist.stream.segments import normalized
from aar_dist.stream.windows import WindowConfig
from aar_dist.training.finetuning.predictions import Predicts

NEEDED = ("classes", "windows", "channels", "rates_hz", "columns")
SAME_RATE = 0.01
"""Rates that differ by less than this share are one rate: clocks of devices are not better."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A fine-tuned model in eval mode on its device."""

    name: str
    objective: Objective
    classes: tuple[str, ...] | None
    """In the order of their numbers; None for a model that predicts a number."""
    windows: WindowConfig
    """Where the labelled windows of its training lay."""
    duration_s: float
    """Of a window."""
    normalize: Normalize
    statistics: TrainedStatistics | None
    """With ``normalize: dataset``."""
    sensors: tuple[str, ...] | None
    """Those drawn together; None for a model of one sensor at a time."""
    kinds: tuple[str, ...]
    """With one sensor at a time: the kinds it may be of; empty for all."""
    columns: tuple[tuple[str | None, ...], ...]
    """Each way in which the columns of a window were filled in training."""
    channels: tuple[str, ...]
    """The channel vocabulary."""
    rates_hz: tuple[float, ...]
    """Of training, rising."""
    any_rate: bool
    """The patches last so many seconds, whatever the rate."""
    trained_on: frozenset[str]
    """Subjects that trained or selected it, ``<data set>/<subject>``."""
    device: torch.device

    def nearest_hz(self, rate_hz: float) -> float:
        """The rate of training that is nearest, as a ratio."""
        return min(self.rates_hz, key=lambda known: abs(np.log(rate_hz / known)))

    def knows(self, rate_hz: float) -> bool:
        """True for a rate of training."""
        return abs(rate_hz / self.nearest_hz(rate_hz) - 1) < SAME_RATE

    @property
    def training_hop_s(self) -> float:
        """From one window to the next in training [s]."""
        return self.windows.hop_s or self.duration_s

    def steps(self, hop_s: float) -> int:
        """How many steps of ``hop_s`` make one of training; 0 where no whole number does."""
        ratio = self.training_hop_s / hop_s
        return round(ratio) if abs(ratio - round(ratio)) < 1e-9 else 0

    def samples(self, rate_hz: float) -> int:
        """Samples of a window, as the stream rounds them. At a rate that counts as one of training they are as many as
        there: a clock that is a little fast must not begin a patch that the model never met."""
        as_trained = not self.any_rate and self.knows(rate_hz)
        return max(1, int(np.rint(self.duration_s * (self.nearest_hz(rate_hz) if as_trained else rate_hz))))

    def says(
        self, values: NDArray[np.float32], rate_hz: float, columns: tuple[str | None, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """What it says of windows (B, S, C), NaN where nothing was recorded: (B, K) or (B, 1), and whether any of the
        samples was recorded (B,)."""
        channel = torch.tensor([-1 if name is None else self.channels.index(name) for name in columns])
        batch = window_batch(
            torch.from_numpy(values).to(self.device),
            channel.to(self.device),
            self.channels,
            rate_hz=rate_hz,
            duration_s=self.duration_s,
            normalize=self.normalize,
        )
        assert isinstance(self.objective, Predicts), "checked when it was opened"
        with torch.inference_mode():
            said = self.objective.predict(batch)
        recorded = batch.valid.flatten(1).any(1)
        return said.reshape(len(values), -1).cpu().numpy(), recorded.cpu().numpy()


def window_batch(
    values: Tensor,
    channel: Tensor,
    channels: tuple[str, ...],
    *,
    rate_hz: float,
    duration_s: float,
    normalize: Normalize,
) -> SegmentBatch:
    """Windows (B, S, C) of one rate, NaN where nothing was recorded, as the stream would hand them on.

    Args:
        channel: (C,) index into ``channels``; -1 absent.
        channels: The channel vocabulary.
        duration_s: Of a window, before it was rounded to samples.
    """
    valid = values.isfinite()
    n, _, width = values.shape
    return SegmentBatch(
        values=normalized(torch.where(valid, values, 0.0), valid, normalize),
        valid=valid,
        rate_hz=torch.full((n,), rate_hz, device=values.device),
        dataset=torch.zeros(n, dtype=torch.int64, device=values.device),
        channel=channel.expand(n, width),
        key=torch.zeros(n, dtype=torch.int64, device=values.device),
        channels=channels,
        # While a program is traced, n is a symbol and no tuple can be so long.
        duration_s=(duration_s,) if torch.compiler.is_exporting() else (duration_s,) * n,
    )


def open_predictor(
    checkpoint: Checkpoint, device: torch.device | str = "cpu", *, statistics_of: str | None = None
) -> Predictor:
    """The model of a stored version.

    Args:
        statistics_of: With ``normalize: dataset``, the data set whose statistics all recordings are given; None for
            each recording's own, or the only one that the model was fine-tuned on.

    Raises:
        CheckpointError: it was not fine-tuned, or published before the store held what prediction needs.
        ConfigError: it knows no such data set.
    """
    objective, manifest, trained = checkpoint.objective(), checkpoint.manifest, checkpoint.config()["data"]
    if not isinstance(objective, Predicts):
        raise CheckpointError(
            f"{checkpoint.where}: {type(objective).__name__} predicts nothing; fine-tune it on labelled recordings "
            "first (launch/finetune.py) and give the model that comes of it"
        )
    if missing := [key for key in NEEDED if key not in manifest]:
        raise CheckpointError(
            f"{checkpoint.where}: its manifest does not tell {missing[0]}, which prediction needs; fine-tune "
            "and publish it with this version of aar_dist"
        )
    statistics = _statistics(checkpoint, trained, statistics_of)
    return _predictor(checkpoint, objective, manifest, trained, statistics, torch.device(device))


def _statistics(
    checkpoint: Checkpoint, trained: Mapping[str, Any], statistics_of: str | None
) -> TrainedStatistics | None:
    """Those of the data sets that it was trained on, where its samples were scaled by them."""
    if trained["normalize"] != "dataset":
        if statistics_of is not None:
            raise ConfigError(
                f"--statistics_of {statistics_of}: {checkpoint.reference} was trained with data.normalize "
                f"{trained['normalize']} and uses none; leave it out"
            )
        return None
    if not trained.get("statistics"):
        raise CheckpointError(
            f"{checkpoint.where}: was trained with data.normalize dataset by an earlier version that did not keep the "
            "statistics; fine-tune and publish it with this version of aar_dist"
        )
    return TrainedStatistics(trained["statistics"], tuple(checkpoint.manifest.get("datasets", ())), statistics_of)


def _predictor(
    checkpoint: Checkpoint,
    objective: Objective,
    manifest: Mapping[str, Any],
    trained: Mapping[str, Any],
    statistics: TrainedStatistics | None,
    device: torch.device,
) -> Predictor:
    windows = dict(manifest["windows"])
    duration_s = float(windows.pop("segment_duration"))
    columns = tuple(tuple(of) for of in manifest["columns"])
    backbone, split = objective.backbone, manifest.get("split", {})
    return Predictor(
        name=checkpoint.reference,
        objective=objective.to(device).eval(),
        classes=None if manifest["classes"] is None else tuple(manifest["classes"]),
        windows=WindowConfig(**{**windows, "datasets": None}),
        duration_s=duration_s,
        normalize=trained["normalize"],
        statistics=statistics,
        sensors=_sensors(trained["sensors"], columns),
        kinds=tuple(trained.get("kinds", ())) if trained["sensors"] == "each" else (),
        columns=columns,
        channels=tuple(manifest["channels"]),
        rates_hz=tuple(manifest["rates_hz"]),
        any_rate=isinstance(backbone, PatchBackbone) and backbone.patching.seconds is not None,
        trained_on=frozenset([*split.get("train", ()), *split.get("validation", ())]),
        device=device,
    )


def _sensors(chosen: str | list[str], columns: tuple[tuple[str | None, ...], ...]) -> tuple[str, ...] | None:
    """The sensors drawn together, in order; None for one at a time. ``all`` are those that the columns name."""
    if chosen == "each":
        return None
    if chosen == "all":
        names = [name.rpartition(".")[0] for of in columns for name in of if name is not None]
        return tuple(sorted(set(names)))
    return (chosen,) if isinstance(chosen, str) else tuple(chosen)
