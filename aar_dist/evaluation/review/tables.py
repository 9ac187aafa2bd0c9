"""All results as two Parquet tables, for whoever wants to look at them another way.

FoldJob … -> windows.parquet, one row for each test window of each run; results.parquet, one for each score of each run

Rows stand in the order of the jobs, and in a run as its stream served them, whoever finished first.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aar_dist.base import storage
from aar_dist.base.stats.calibration import temperature
from aar_dist.evaluation.fold_jobs import FoldJob
from aar_dist.evaluation.review.answers import Answers, Classes, read_answers
from aar_dist.training.finetuning.predictions import METRICS, TEST, file_of

WINDOWS, RESULTS = "windows.parquet", "results.parquet"
NAME = pa.string()
"""Parquet keeps each of a few names once."""
RUN = [
    pa.field("method", NAME), pa.field("kind", NAME), pa.field("seed", pa.int64()), pa.field("repeat", pa.int16()),
    pa.field("fold", pa.int16()), pa.field("share", pa.float64()),
]  # fmt: skip
"""Which run: ``share`` of the train side's subjects, 1 for all."""
ORIGIN = ("dataset", "subject", "recording", "start_s", "stop_s")
SCORES = pa.schema([*RUN, pa.field("score", NAME), pa.field("value", pa.float64()), pa.field("n", pa.int64())])
"""``n`` test windows; null is a score that is not defined."""


def write_tables(out: Path, jobs: Sequence[FoldJob], classes: Classes, repeats: int = 1) -> None:
    """Write both into a folds folder, replacing what stood there; of the runs that are done.

    Args:
        out: The folder.
        jobs: All that were to be done.
        classes: Names; None for a target.
        repeats: Deals of the subjects.
    """
    answers = [one for of in _methods(jobs) for one in read_answers(of, classes, repeats)]
    _write(out / WINDOWS, windows_schema(classes), (_windows(one, classes) for one in answers))
    _write(out / RESULTS, SCORES, (_scores(one) for one in answers))


def windows_schema(classes: Classes) -> pa.Schema:
    """Columns of windows.parquet; its metadata holds the ``classes`` in the order of their numbers."""
    origin = [pa.field(name, NAME) for name in ORIGIN[:3]] + [pa.field(name, pa.float64()) for name in ORIGIN[3:]]
    if classes is None:
        said = [pa.field("y_true", pa.float64()), pa.field("y_pred", pa.float64())]
    else:
        said = [
            pa.field("y_true", pa.int32()), pa.field("y_pred", pa.int32()),
            pa.field("true_class", NAME), pa.field("pred_class", NAME),
            pa.field("probability", pa.list_(pa.float32())), pa.field("temperature", pa.float64()),
        ]  # fmt: skip
    return pa.schema([*RUN, *origin, *said], metadata={"classes": json.dumps(None if classes is None else [*classes])})


def _methods(jobs: Sequence[FoldJob]) -> list[list[FoldJob]]:
    """The jobs of each method and share: their folds are numbered through the repeats."""
    groups: dict[tuple[str, float], list[FoldJob]] = {}
    for job in jobs:
        groups.setdefault((job.method, job.fraction), []).append(job)
    return list(groups.values())


def _windows(one: Answers, classes: Classes) -> pa.Table:
    table = pq.read_table(file_of(one.job.folder, TEST, one.job.fold))
    schema, n = windows_schema(classes), len(table)
    columns: dict[str, Any] = {name: table[name] for name in (*ORIGIN, "y_true", "y_pred")}
    if classes is not None:
        names = pa.array(list(classes), pa.string())
        for name, of in (("true_class", "y_true"), ("pred_class", "y_pred")):
            columns[name] = names.take(table[of])
        columns["probability"] = table["probability"] if "probability" in table.schema.names else pa.nulls(n)
        columns["temperature"] = pa.array([_temperature(one)] * n, pa.float64())
    return _typed(_of_run(one, n) | columns, schema)


def _scores(one: Answers) -> pa.Table:
    told = storage.read_json(one.job.folder / METRICS)
    names = [name for name in (*one.test.names, "n") if name in told]
    rows = {"score": names, "value": [told[name] for name in names], "n": [told["n"]] * len(names)}
    return _typed(_of_run(one, len(names)) | rows, SCORES)


def _of_run(one: Answers, n: int) -> dict[str, Any]:
    job = one.job
    run = (job.method, job.kind, job.seed, one.repeat, int(job.fold), job.fraction)
    return {field.name: [value] * n for field, value in zip(RUN, run, strict=True)}


def _temperature(one: Answers) -> float | None:
    side = one.validation
    return None if side is None or side.probability is None else temperature(side.probability, side.y_true)


def _typed(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    arrays = [_cast(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _cast(values: Any, kind: pa.DataType) -> Any:
    return pa.array(values, kind) if isinstance(values, list) else values.cast(kind)


def _write(file: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    staging = storage.staging_name(file)
    with storage.one_line_errors(file, staging):
        with pq.ParquetWriter(staging, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
        storage.replace(staging, file)
