"""The one form of window that an exported model takes: its rate, its length, its channels.

manifest of a fine-tuned model | shards -> rates, and the ways in which columns were filled -> what is asked for -> Form
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.predict_model import SAME_RATE
from aar_dist.models.backbone import Backbone, PatchBackbone
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.stream.config import DataConfig

Columns = tuple[str | None, ...]
"""Names of the channels, None where a recording has none."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A window."""

    rate_hz: float
    duration_s: float
    """Before it is rounded to samples."""
    samples: int
    columns: Columns
    """Of a window in training."""
    vocabulary: tuple[str, ...]
    """The channel vocabulary of training, and what is new."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Those that an input has, in order."""
        return tuple(name for name in self.columns if name is not None)

    @property
    def index(self) -> list[int]:
        """Of each column in the vocabulary; -1 where it has no channel."""
        return [-1 if name is None else self.vocabulary.index(name) for name in self.columns]

    def agrees(self, columns: Columns) -> bool:
        """Whether a window with these columns is one of ours, perhaps with channels absent."""
        width = len(self.columns)
        pairs = zip(columns[:width], self.columns, strict=False)
        inside = any(columns[:width]) and not any(columns[width:])
        return inside and all(theirs in (None, ours) for theirs, ours in pairs)


@dataclass(frozen=True)
class Seen:
    """What windows were recorded with."""

    rates_hz: tuple[float, ...]
    """Rising."""
    ways: tuple[Columns, ...]
    """Each in which columns were filled."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Seen":
        """As a manifest, or :func:`~aar_dist.training.finetuning.task.seen_by`, tells it."""
        return cls(tuple(told["rates_hz"]), tuple(tuple(way) for way in told["columns"]))


def form_of(
    checkpoint: Checkpoint,
    backbone: Backbone,
    data: DataConfig,
    seen: Seen,
    *,
    rate_hz: float | None = None,
    channels: Sequence[str] | None = None,
) -> Form:
    """The form of window; ``rate_hz`` and ``channels`` choose where there are several.

    Raises:
        ConfigError: several and none chosen, or one that the model was not trained on; more patches than it has
            positions.
    """
    rate = _rate(checkpoint, backbone, seen, rate_hz)
    columns = _columns(checkpoint, seen, channels)
    samples = max(1, int(np.rint(data.segment_duration * rate)))
    duration_s = min(data.segment_duration, data.max_window_length / rate)
    backbone.check_duration(duration_s)
    known = checkpoint.manifest.get("channels", ())
    vocabulary = tuple(dict.fromkeys([*known, *(name for name in columns if name is not None)]))
    return Form(
        rate_hz=rate,
        duration_s=duration_s,
        samples=min(samples, data.max_window_length),
        columns=columns,
        vocabulary=vocabulary,
    )


def _rate(checkpoint: Checkpoint, backbone: Backbone, seen: Seen, asked: float | None) -> float:
    if asked is None and len(seen.rates_hz) == 1:
        return seen.rates_hz[0]
    told = f"{', '.join(f'{rate:g}' for rate in seen.rates_hz)} Hz"
    if asked is None:
        raise ConfigError(
            f"{checkpoint.reference}: its windows were recorded at {told}, and an exported model takes windows of one "
            "rate; choose it with --rate_hz, and export once for each"
        )
    if not 0 < asked < np.inf:
        raise ConfigError(f"--rate_hz must be positive, got {asked:g}")
    nearest = min(seen.rates_hz, key=lambda known: abs(np.log(asked / known)))
    if abs(asked / nearest - 1) < SAME_RATE:
        return nearest
    if isinstance(backbone, PatchBackbone) and backbone.patching.seconds is not None:
        return asked
    raise ConfigError(
        f"--rate_hz {asked:g}: {checkpoint.reference} knows windows at {told}, and its features depend on the rate; "
        "export it at one of these and resample before it"
    )


def _columns(checkpoint: Checkpoint, seen: Seen, asked: Sequence[str] | None) -> Columns:
    forms = merged(seen.ways)
    if asked is not None:
        forms = [form for form in forms if {*asked} == {name for name in form if name is not None}]
    if len(forms) == 1:
        return forms[0]
    told = " or ".join(", ".join(name for name in form if name) for form in merged(seen.ways))
    if asked is None:
        raise ConfigError(
            f"{checkpoint.reference}: its windows have the channels {told}; an exported model takes one of these: "
            "choose with --channels"
        )
    raise ConfigError(f"--channels {' '.join(asked)}: {checkpoint.reference} knows the channels {told}")


def merged(ways: Sequence[Columns]) -> list[Columns]:
    """Ways that differ only in what is absent as one, without the empty columns behind the last filled one."""
    forms: list[Columns] = []
    for way in sorted(ways, key=lambda columns: (sum(name is None for name in columns), str(columns))):
        for k, form in enumerate(forms):
            pairs = list(zip(form, way, strict=True))
            if all(a == b or a is None or b is None for a, b in pairs):
                forms[k] = tuple(a or b for a, b in pairs)
                break
        else:
            forms.append(tuple(way))
    return [form[: max(k for k, name in enumerate(form) if name is not None) + 1] for form in forms]
