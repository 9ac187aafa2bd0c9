"""How far a prediction agrees with the labels that some recordings carry.

labels of a recording + what was said of its windows -> true and predicted of the windows that training would label

The windows are those of training (length, step, share that a label must cover), so that on the subjects of a fold's
test side the scores are those of the fold.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.metrics import classification_scores, regression_scores
from aar_dist.evaluation.predict_model import Predictor
from aar_dist.evaluation.predict_windows import Said
from aar_dist.recordings.contract import Recording, check_labels, read_labels
from aar_dist.shards.writer import label_runs
from aar_dist.stream.windows import class_of

Floats = NDArray[np.float64]
BLOCK = 1 << 18
"""Labels read at once: weeks of a target need little memory."""


@dataclass
class Agreement:
    """Labelled windows of all recordings so far."""

    predictor: Predictor
    hop_s: float
    """The step of the prediction."""
    true: list[NDArray[Any]] = field(default_factory=list)
    said: list[NDArray[Any]] = field(default_factory=list)
    subjects: set[str] = field(default_factory=set)
    """``<data set>/<subject>`` of those with labels."""
    unknown: set[str] = field(default_factory=set)
    """Classes of the labels that the model does not know."""

    @property
    def trained_on(self) -> list[str]:
        """Those of the subjects that trained or selected the model."""
        return sorted(self.subjects & self.predictor.trained_on)

    @property
    def compared_hop_s(self) -> float:
        """The step of the windows that are compared: training's, if every so manieth window of ours is one of them."""
        return self.predictor.training_hop_s if self.predictor.steps(self.hop_s) else self.hop_s

    def add(self, recording: Recording, said: Said, n_samples: int) -> None:
        """Take the labelled windows of a recording; nothing happens where it has no label, or none of this kind.

        Raises:
            RecordingError: a label that is none of its classes.
        """
        label, classes = recording.label, self.predictor.classes
        if label is None or (label.classes is None) != (classes is None):
            return
        place = self._windows(said, n_samples)
        if not len(place):
            return
        duration_s, rate_hz = self.predictor.duration_s, said.rate_hz
        true, share = self._labels(recording, label.rate_hz, said.start[place] / rate_hz)
        enough = share >= self.predictor.windows.min_share - 0.5 / (duration_s * rate_hz)
        if not enough.any():
            return
        output = said.output[place][enough]
        self.true.append(true[enough])
        self.said.append(output.argmax(1) if classes is not None else output[:, 0])
        self.subjects.add(f"{recording.dataset}/{recording.subject}")

    def _labels(self, recording: Recording, rate_hz: float, start_s: Floats) -> tuple[NDArray[Any], Floats]:
        """The label of each window, and the share of it that the label covers; read stretch by stretch."""
        stop_s, last, found = start_s + self.predictor.duration_s, 0, []
        while last < len(start_s):
            first, last = last, max(last + 1, int(np.searchsorted(stop_s, stop_s[last] + BLOCK / rate_hz)))
            begin = int(start_s[first] * rate_hz)
            end = int(np.ceil(stop_s[last - 1] * rate_hz)) + 1 if last < len(start_s) else None
            values = read_labels(recording, begin, end)
            check_labels(values, recording)
            found.append(self._of(values, begin, rate_hz, recording, start_s[first:last], stop_s[first:last]))
        label, share = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return label, share

    def _of(
        self, values: NDArray[Any], begin: int, rate_hz: float, recording: Recording, start_s: Floats, stop_s: Floats
    ) -> tuple[NDArray[Any], Floats]:
        """The same from labels that begin with sample ``begin`` of their clock."""
        if self.predictor.classes is None:
            return mean_target(values, begin, rate_hz, start_s, stop_s)
        assert recording.label, "asked before"
        runs = label_runs(values, begin, rate_hz, recording, recording.label.classes)
        names = {run["class"] for run in runs}
        if renaming := self.predictor.windows.label_map():
            runs = renaming.relabelled(runs)
            names = {name for name in names if renaming.named(recording.dataset, name) not in self.predictor.classes}
        self.unknown |= names - {*self.predictor.classes, None}
        return class_of(runs, self.predictor.classes, start_s, stop_s)

    def _windows(self, said: Said, n_samples: int) -> NDArray[np.int64]:
        """Which of the windows are compared: whole ones, on the grid."""
        window = self.predictor.samples(said.rate_hz)
        if n_samples < window:
            return np.zeros(0, np.int64)
        hop = self.compared_hop_s * said.rate_hz
        grid = np.rint(np.arange(int((n_samples - window) / hop) + 2) * hop).astype(np.int64)
        return np.flatnonzero(np.isin(said.start, grid))

    def scores(self) -> dict[str, Any] | None:
        """Scores over all of them, ready for JSON; None where no recording has labels that the model knows."""
        if not self.true:
            return None
        true, said = np.concatenate(self.true), np.concatenate(self.said)
        classes = self.predictor.classes
        made = regression_scores(true, said) if classes is None else classification_scores(true, said, classes)
        subjects = {"subjects": len(self.subjects), "subjects_that_trained_it": len(self.trained_on)}
        return {"window_s": self.predictor.duration_s, "hop_s": self.compared_hop_s, **subjects, **made}


def mean_target(
    values: NDArray[Any], begin: int, rate_hz: float, start_s: Floats, stop_s: Floats
) -> tuple[Floats, Floats]:
    """The mean of a target over each window, and the share of the window that it is told for, each (m,).

    Args:
        values: (n,) the target, NaN where it is not told; the first is sample ``begin`` of its clock.
        begin: From 0.
        rate_hz: Of the target.
        start_s, stop_s: (m,) of the windows.
    """
    there = ~np.isnan(values)
    edges = (begin + np.arange(len(values) + 1)) / rate_hz
    told, total = (np.r_[0.0, np.cumsum(x, dtype=np.float64)] / rate_hz for x in (there, np.where(there, values, 0.0)))
    seconds, weighted = (np.interp(stop_s, edges, x) - np.interp(start_s, edges, x) for x in (told, total))
    return weighted / np.where(seconds > 0, seconds, 1.0), seconds / (stop_s - start_s)
