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
from aar_dist.stream.windows import class_of, target_of


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
        values = read_labels(recording)
        check_labels(values, recording)
        runs = label_runs(values, 0, label.rate_hz, recording, label.classes)
        self.unknown |= {run["class"] for run in runs} - {*(classes or ()), None}
        duration_s, rate_hz = self.predictor.duration_s, said.rate_hz
        start_s = said.start[place] / rate_hz
        of = class_of if classes is not None else target_of
        true, share = of(runs, classes or (), start_s, start_s + duration_s)
        enough = share >= self.predictor.windows.min_share - 0.5 / (duration_s * rate_hz)
        if not enough.any():
            return
        output = said.output[place][enough]
        self.true.append(true[enough])
        self.said.append(output.argmax(1) if classes is not None else output[:, 0])
        self.subjects.add(f"{recording.dataset}/{recording.subject}")

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
