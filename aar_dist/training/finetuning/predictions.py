"""What a finished model says of the windows it was not trained on, and how often it is right.

model, windows -> probabilities (n, K) or values (n,) -> y_*_fold_k.npy, predictions_fold_k.parquet, metrics.json
                                                          of the side that chose the weights: validation_fold_k.parquet
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from aar_dist.base import storage
from aar_dist.base.metrics import classification_scores, regression_scores
from aar_dist.base.stats.ordering import AUROC, auroc
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.loader import SegmentStream
from aar_dist.stream.windows import WindowTable

METRICS = "metrics.json"
TEST, VALIDATION = "predictions", "validation"
"""Sides that are kept; see :func:`file_of`."""


@runtime_checkable
class Predicts(Protocol):
    """An objective that says what a segment is."""

    def predict(self, batch: SegmentBatch) -> torch.Tensor:
        """Probabilities (B, n_classes), or values (B,)."""


@dataclass(frozen=True)
class Predictions:
    """Labels of n windows beside what a model says."""

    table: WindowTable
    said: NDArray[np.float32]
    """(n, n_classes) probabilities, or (n,) values."""
    graded: bool = True
    """False of a method without probabilities: it says 0 and 1, which are not kept as such."""

    @property
    def predicted(self) -> NDArray[Any]:
        """(n,) the most probable class, int64, or the value, float32."""
        return self.said if self.table.classes is None else self.said.argmax(axis=1)

    def scores(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        if self.table.classes is None:
            return regression_scores(self.table.label, self.predicted)
        found = classification_scores(self.table.label, self.predicted, self.table.classes)
        return found | ({AUROC: auroc(self.table.label, self.said)} if self.graded else {})


def predict(
    model: Predicts,
    stream: SegmentStream,
    table: WindowTable,
    batch_size: int,
    device: torch.device,
    beat: Callable[[], None],
) -> Predictions:
    """What a model in eval mode says of every window of a stream that serves ``table`` in its order, to one rank. It
    beats at each batch."""
    parts = []
    for batch, weight in stream.evaluation(batch_size, batch_size, device):
        beat()
        parts.append(model.predict(batch)[weight > 0].cpu().numpy())
    return Predictions(table, np.concatenate(parts))


def file_of(folder: Path, side: str, fold: int | str) -> Path:
    """Where the windows of a side are."""
    return folder / f"{side}_fold_{fold}.parquet"


def write(made: Predictions, folder: Path, fold: int | str, about: dict[str, Any]) -> dict[str, Any]:
    """Write the test side into a run directory; returns what stands in metrics.json."""
    arrays = {"y_true": made.table.label, "y_pred": made.predicted}
    if made.table.classes is not None:
        arrays["y_prob"] = made.said
    for name, array in arrays.items():
        with storage.one_line_errors(folder):
            np.save(folder / f"{name}_fold_{fold}.npy", array)
    write_windows(made, file_of(folder, TEST, fold))
    scores = {"fold": fold, **made.scores(), **about}
    storage.write_json(folder / METRICS, scores)
    return scores


def write_windows(made: Predictions, file: Path) -> None:
    """One row a window: where it comes from, ``y_true``, ``y_pred`` and, of classes, ``probability``, a list of K (null
    of a method that has none)."""
    table = made.table
    rows = {name: getattr(table, name) for name in ("dataset", "subject", "recording", "start_s", "stop_s")}
    columns = {name: pa.array(column.tolist()) for name, column in rows.items()}
    columns |= {"y_true": pa.array(table.label), "y_pred": pa.array(made.predicted)}
    if table.classes is not None:
        columns["probability"] = _probabilities(made)
    with storage.one_line_errors(file.parent):
        pq.write_table(pa.table(columns), file)


def _probabilities(made: Predictions) -> pa.Array:
    n, k = made.said.shape
    if not made.graded:
        return pa.nulls(n, pa.list_(pa.float32(), k))
    return pa.FixedSizeListArray.from_arrays(pa.array(made.said.astype(np.float32).reshape(-1)), k)
