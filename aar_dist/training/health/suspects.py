"""Which segments made a step's loss or gradients other than finite.

loss (B,) of each micro-batch of this rank  ->  the segments that broke, with where they were recorded
all ranks' -> one finding: how many, the worst first

Looked for only after a step was left out; until then nothing is asked of the device.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from aar_dist.stream.batch import Origin

WRITTEN = 20
"""Segments of a step that are written down."""
NAMED = 3
"""… and told on the terminal."""

Segment = dict[str, Any]
"""An origin, ``loss`` (None: not finite) and ``peak``, the largest absolute value that the model was given."""


@dataclass(frozen=True)
class Finding:
    """What is known of a step that was left out: on one rank, or on all."""

    n_segments: int
    n_broken: int
    """Segments whose own loss is not finite."""
    segments: list[Segment]
    """Those, the largest values first, up to ``WRITTEN``; if there are none, the one with the largest loss."""

    @property
    def text(self) -> str:
        """One line for a person."""
        named = [place_of(segment) for segment in self.segments[:NAMED]]
        if not self.n_broken:
            (largest,) = self.segments
            return (
                f"gradients are not finite, though the loss of each of the {self.n_segments} segments is; the "
                f"largest, {largest['loss']:.3g}, is of {named[0]}"
            )
        more = f" and {self.n_broken - len(named)} more" if self.n_broken > len(named) else ""
        verb = "is" if self.n_broken == 1 else "are"
        return f"the loss of {self.n_broken} of {self.n_segments} segments {verb} not finite: {', '.join(named)}{more}"


def look(losses: Sequence[Tensor], values: Sequence[Tensor], origins: Callable[[], Sequence[Origin]]) -> Finding:
    """This rank's segments.

    Args:
        losses: (B,) of each micro-batch, as an objective tells it: NaN where undefined, infinite where broken.
        values: (B, T, C) of each.
        origins: Where the segments of all micro-batches were recorded, in their order.
    """
    loss = torch.cat([each.float() for each in losses]).cpu()
    peak = torch.cat([each.abs().amax((1, 2)) for each in values]).float().cpu()
    broken = loss.isinf().nonzero().flatten()
    if len(broken):
        order = broken[peak[broken].argsort(descending=True, stable=True)][:WRITTEN]
    else:
        order = loss.nan_to_num(nan=-math.inf).argmax()[None]
    places = origins()
    found = [{**asdict(places[i]), "loss": _finite(float(loss[i])), "peak": float(peak[i])} for i in order.tolist()]
    return Finding(len(loss), len(broken), found)


def merged(findings: Iterable[Finding]) -> Finding:
    """What all ranks found."""
    every = list(findings)
    n_segments, n_broken = (sum(getattr(f, name) for f in every) for name in ("n_segments", "n_broken"))
    segments = [segment for f in every for segment in f.segments if not n_broken or f.n_broken]
    if n_broken:
        segments.sort(key=lambda s: s["peak"], reverse=True)
        return Finding(n_segments, n_broken, segments[:WRITTEN])
    largest = max(segments, key=lambda s: -math.inf if s["loss"] is None else s["loss"])
    return Finding(n_segments, 0, [largest])


def place_of(segment: Segment) -> str:
    """Where a segment was recorded, and the largest value in it."""
    where = f"{segment['dataset']}/{segment['recording']} {segment['sensor']} at {segment['start_s']:.2f} s"
    return f"{where} (subject {segment['subject']}, values up to {segment['peak']:.3g})"


def worst_recording(steps: Iterable[Sequence[Segment]]) -> str:
    """The recording most often first to blame, in words; steps are those left out in a row."""
    every = [segments[0] for segments in steps if segments]
    names = Counter(f"{s['dataset']}/{s['recording']} {s['sensor']}" for s in every)
    name, times = names.most_common(1)[0]
    return f"{name} in {times} of {len(every)}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
