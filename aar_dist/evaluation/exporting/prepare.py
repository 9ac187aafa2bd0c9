"""What will be exported, settled before anything is traced.

Checkpoint, shards, ExportOptions -> Prepared: the model of one form of window, what it tells of itself, real windows
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.embed import stream_of
from aar_dist.evaluation.exporting.form import Form, Seen, form_of
from aar_dist.evaluation.exporting.formats import INPUT
from aar_dist.evaluation.exporting.windowed import Output, Scaling, WindowModel, answering, scaling_of
from aar_dist.evaluation.exporting.windows import Known, Recorded, known_windows, open_recorded, units_of
from aar_dist.objectives.base import Objective
from aar_dist.store.checkpoint import WEIGHTS, Checkpoint
from aar_dist.store.registry import code_version
from aar_dist.stream.config import DataConfig, Normalize
from aar_dist.training.finetuning.predictions import Predicts

WINDOWS, TOLERANCE = 512, 1e-4


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, and how to check it."""

    embed: bool = False
    """The embedding, of a fine-tuned model too."""
    rate_hz: float | None = None
    """Of the windows, where the model knows several."""
    channels: tuple[str, ...] | None = None
    """Of the windows, where it knows several sets."""
    statistics_of: str | None = None
    """``DATASET`` or ``DATASET/SENSOR`` of training, with ``normalize: dataset``."""
    parity: bool = True
    """Compare with the stored model."""
    windows: int = WINDOWS
    """At most so many to compare on."""
    tolerance: float = TOLERANCE
    """The largest difference of any number."""

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise ConfigError(f"--windows must be at least 1, got {self.windows}")
        if not self.tolerance >= 0:
            raise ConfigError(f"--tolerance must be 0 or more, got {self.tolerance:g}")


@dataclass(frozen=True)
class Prepared:
    """Ready to be traced."""

    model: WindowModel
    """In eval mode on the CPU."""
    about: dict[str, Any]
    """What the file tells of itself; JSON."""
    known: Known | None
    """None without a comparison."""


def prepare(checkpoint: Checkpoint, shards: Sequence[str], options: ExportOptions) -> Prepared:
    """Settle the form of the windows, the normalisation and the output; read the real windows.

    Raises:
        ConfigError: what to export is not clear, or the shards have no such windows.
    """
    if not shards and options.parity:
        raise ConfigError("give shards with windows to compare on, or go without the comparison with --no_parity")
    objective, data = checkpoint.objective(), stream_of(checkpoint, shards)
    recorded = open_recorded(data) if shards else None
    seen = _seen(checkpoint, objective, recorded)
    form = form_of(checkpoint, objective.backbone, data, seen, rate_hz=options.rate_hz, channels=options.channels)
    scaling = scaling_of(checkpoint, data, form, options.statistics_of)
    output, answers = answering(objective, embed=options.embed)
    classes = checkpoint.manifest.get("classes") if output == "probability" else None
    return Prepared(
        WindowModel(answers, form, _inside(data.normalize), scaling).eval(),
        {**_source(checkpoint), **_told(form, output, classes), **_scale(data, form, scaling)},
        _known(recorded, form, scaling, answers, options),
    )


def _seen(checkpoint: Checkpoint, objective: Objective, recorded: Recorded | None) -> Seen:
    """What a fine-tuned model was trained on; of a pretrained one, what the shards hold."""
    if isinstance(objective, Predicts) and {"rates_hz", "columns"} <= checkpoint.manifest.keys():
        return Seen.of(checkpoint.manifest)
    if recorded is None:
        raise ConfigError(
            f"{checkpoint.reference}: nothing in the store tells the rates and channels it takes; give shards that do"
        )
    return recorded.seen


def _known(
    recorded: Recorded | None, form: Form, scaling: Scaling | None, answers: nn.Module, options: ExportOptions
) -> Known | None:
    if recorded is None or not options.parity:
        return None
    return known_windows(recorded, form, scaling, answers, options.windows)


def _inside(normalize: Normalize) -> Normalize:
    """What of the normalisation a window can be given by itself; the statistics of a data set are constants."""
    return normalize if normalize in ("centre", "segment") else "none"


def _source(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "model": checkpoint.reference,
        "weights_sha256": checkpoint.manifest["files"][WEIGHTS],
        "aar_dist": code_version(),
    }


def _told(form: Form, output: Output, classes: Sequence[str] | None) -> dict[str, Any]:
    return {
        "input": INPUT,
        "samples": form.samples,
        "channels": list(form.channels),
        "rate_hz": form.rate_hz,
        "window_s": form.duration_s,
        "output": output,
        "classes": None if classes is None else list(classes),
    }


def _scale(data: DataConfig, form: Form, scaling: Scaling | None) -> dict[str, Any]:
    return {
        "units": list(units_of(form, data)),
        "normalize": data.normalize,
        "statistics_of": None if scaling is None else scaling.name,
    }
