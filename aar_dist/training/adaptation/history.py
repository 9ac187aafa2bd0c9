"""training_history.json: one number an epoch, for plots and for eyes. Made from metrics.jsonl, which has every step.

{"step": [6, 12], "stage": ["head only", "all layers"], "train_loss": [1.1, 0.9], "val_loss": [1.0, 0.8], …}
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from aar_dist.base import storage
from aar_dist.training.metrics import Row, read_rows

FILE = "training_history.json"
NAMES = ("loss", "accuracy", "mae")


def write_history(root: Path, stages: Sequence[str], every: int) -> None:
    """Write the file into a run directory.

    Args:
        stages: Names of the run's phases.
        every: Steps of an epoch.
    """
    storage.write_json(root / FILE, history(read_rows(root / "metrics.jsonl"), stages, every))


def history(rows: Iterable[Row], stages: Sequence[str], every: int) -> dict[str, list[Any]]:
    """Means over the steps of each epoch, and its last validation; None where there is none."""
    epochs: dict[int, list[Row]] = {}
    for row in rows:
        if row["step"] and not any(key.startswith("test/") for key in row):
            epochs.setdefault(-(-row["step"] // every), []).append(row)
    made: dict[str, list[Any]] = {"step": [of[-1]["step"] for of in epochs.values()]}
    made["stage"] = [stages[of[-1].get("phase", 1) - 1] for of in epochs.values()]
    for name in NAMES:
        train = [_values(of, name) for of in epochs.values()]
        validation = [_values(of, f"val/{name}") for of in epochs.values()]
        if any(train):
            made[f"train_{name}"] = [fmean(values) if values else None for values in train]
        if any(validation):
            made[f"val_{name}"] = [values[-1] if values else None for values in validation]
    return made


def _values(rows: Iterable[Row], key: str) -> list[float]:
    return [row[key] for row in rows if row.get(key) is not None]
