"""What a method said of every test window, from the files of its folds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aar_dist.base.errors import ConfigError
from aar_dist.report.folders import Folds

Table = dict[str, NDArray[Any]]
COLUMNS = ("subject", "recording", "start_s", "stop_s", "y_true", "y_pred")


def predictions(folds: Folds, method: Mapping[str, Any], seed: Any) -> Table | None:
    """All test windows of a method and seed as columns, each once: those of the first repeat; None if no fold left its
    file."""
    first = folds.results["n_folds"] // (folds.results.get("repeats") or 1)
    runs = [run for run in method["runs"] if run["seed"] == seed and run["fold"] < first]
    files = [folds.run(method["name"], seed, run["fold"]) / f"predictions_fold_{run['fold']}.parquet" for run in runs]
    return read_predictions([file for file in files if file.is_file()])


def read_predictions(files: Sequence[Path]) -> Table | None:
    """The columns of all of them; None without a file."""
    if not files:
        return None
    tables = [read_parquet(file, COLUMNS) for file in files]
    return {name: np.concatenate([np.asarray(t[name].to_pylist()) for t in tables]) for name in COLUMNS}


def read_parquet(file: Path, columns: Sequence[str]) -> pa.Table:
    """These columns. Raises ``ConfigError`` if the file is damaged or lacks one."""
    try:
        return pq.read_table(file, columns=list(columns))
    except pa.ArrowException as error:
        told = type(error).__name__
        raise ConfigError(
            f"{file}: cannot be read as Parquet with {', '.join(columns)} ({told}); run again what wrote it"
        ) from None
