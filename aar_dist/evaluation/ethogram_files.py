"""What a prediction leaves behind, whole or not at all.

Results -> ethogram, budget, timeline, about in a new folder; or a named .csv or .parquet with the others beside it
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from aar_dist.base import storage
from aar_dist.base.errors import ConfigError, StorageError
from aar_dist.base.plots import save_figure
from aar_dist.base.timelines import timeline_figure
from aar_dist.evaluation.ethogram_days import Day, Ethogram, budget, days, lanes
from aar_dist.recordings.out import new_folder, sweep_abandoned
from aar_dist.store.checkpoint import WEIGHTS, Checkpoint
from aar_dist.store.registry import code_version

FORMATS = ("parquet", "csv")
ETHOGRAM, BUDGET, TIMELINE, ABOUT = "ethogram", "budget", "timeline.png", "about.json"
MOST_LANES = 200


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was predicted of all recordings."""

    checkpoint: Checkpoint
    classes: tuple[str, ...] | None
    ethograms: tuple[Ethogram, ...]
    agreement: dict[str, Any] | None
    """Scores against the labels of the recordings, where they have any."""
    settings: dict[str, Any]
    notes: tuple[str, ...]

    def summary(self, out: Path) -> str:
        """For the terminal."""
        hours = sum(e.duration_s for e in self.ethograms) / 3600
        rows, animals = sum(map(len, self.ethograms)), len({(e.dataset, e.subject) for e in self.ethograms})
        what = "windows" if self.classes is None else "runs"
        lines = [f"{out}: {rows} {what} in {len(self.ethograms)} recordings of {animals} subjects, {hours:.2f} h"]
        if self.agreement:
            a = self.agreement
            names = ("mae", "rmse", "r") if self.classes is None else ("accuracy", "balanced_accuracy", "macro_f1")
            told = ", ".join(
                f"{n.replace('_', ' ').replace('f1', 'F1')} {'-' if a[n] is None else format(a[n], '.4f')}"
                for n in names
            )
            windows = f"{a['n']} windows of {a['window_s']:g} s, one every {a['hop_s']:g} s"
            seen = a["subjects_that_trained_it"]
            whom = f"of {a['subjects']} subjects" + (f", {seen} of which trained the model" if seen else "")
            lines.append(f"agreement with the labels: {told} ({windows}, {whom})")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def check_free(out: Path) -> None:
    """Raise if ``out``, or a file that would stand beside it, exists, cannot be made, or has an ending of its own."""
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise StorageError(f"{out}: {there} is no folder that can be written to; give another name")
    if not out.suffix or out.is_dir():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise StorageError(f"{out}: already holds something; give another name, or remove it")
        return
    if out.suffix.lstrip(".") not in FORMATS:
        raise ConfigError(f"{out}: an ethogram is a .parquet or a .csv file, or a folder without a dot in its name")
    for file in _beside(out).values():
        if file.exists():
            raise StorageError(f"{file}: exists; give another name, or remove it")


def write_results(results: Results, out: Path, kind: str) -> None:
    """Write everything; a reader sees all of it or nothing under the name ``out``."""
    if not out.suffix or out.is_dir():
        with new_folder(out) as folder:
            _write(results, folder, kind)
        return
    sweep_abandoned(out)
    staging = storage.staging_name(out)
    with storage.one_line_errors(out, staging):
        staging.mkdir(parents=True)
        _write(results, staging, out.suffix.lstrip("."))
        for name, target in reversed(_beside(out).items()):  # the ethogram last
            if (staging / name).exists():
                storage.publish(staging / name, target)
        staging.rmdir()


def _beside(out: Path) -> dict[str, Path]:
    """Where each of the files goes, by its name in a folder, if the ethogram is to be ``out``."""
    kind = out.suffix.lstrip(".")
    others = (f"{BUDGET}.{kind}", TIMELINE, ABOUT)
    return {f"{ETHOGRAM}.{kind}": out} | {name: out.with_name(f"{out.stem}_{name}") for name in others}


def _write(results: Results, folder: Path, kind: str) -> None:
    """Every file; a budget and a picture are of behaviours only."""
    _write_table(ethogram_table(results), folder / f"{ETHOGRAM}.{kind}", kind)
    if results.classes is not None:
        found = days(results.ethograms)
        rows = pa.Table.from_pylist(budget(found, results.classes), BUDGET_SCHEMA)
        _write_table(rows, folder / f"{BUDGET}.{kind}", kind)
        save_figure(_picture(found, results.classes), folder / TIMELINE)
    storage.write_json(folder / ABOUT, _about(results))


BUDGET_SCHEMA = pa.schema(
    [*((name, pa.string()) for name in ("dataset", "subject", "day", "behaviour")),
     ("seconds", pa.float64()), ("share", pa.float64())]
)  # fmt: skip


def _write_table(table: pa.Table, path: Path, kind: str) -> None:
    if kind == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path, compression="zstd")


def ethogram_table(results: Results) -> pa.Table:
    """A row for each run (or each window, where a number is predicted), in the order of recordings and time."""
    parts = [_rows(e, results.classes) for e in results.ethograms]
    table = pa.concat_tables(parts)
    for name in ("source", "start_time", "end_time"):
        if table[name].null_count == len(table):
            table = table.drop_columns(name)
    return table


def _rows(e: Ethogram, classes: Sequence[str] | None) -> pa.Table:
    n, text = len(e), pa.string()
    columns = {name: pa.array([getattr(e, name)] * n, text) for name in ("dataset", "subject", "recording")}
    columns["source"] = pa.array([e.source or None] * n, text)
    columns["start_s"] = pa.array((e.start_s + e.offset_s).round(6))
    columns["end_s"] = pa.array((e.stop_s + e.offset_s).round(6))
    columns["start_time"] = pa.array(_moments(e.start_time, e.start_s.tolist()), text)
    columns["end_time"] = pa.array(_moments(e.start_time, e.stop_s.tolist()), text)
    if classes is None:
        return pa.table({**columns, "value": pa.array(e.value)})
    behaviour = pa.array([classes[label] for label in e.label], text)
    return pa.table({**columns, "behaviour": behaviour, "confidence": pa.array(e.value.round(6))})


def _moments(start_time: str | None, seconds: Sequence[float]) -> list[str | None]:
    """ISO 8601 to the millisecond, with the zone of the recording if it has one."""
    if start_time is None:
        return [None] * len(seconds)
    begin = datetime.fromisoformat(start_time)
    return [(begin + timedelta(seconds=s)).isoformat(timespec="milliseconds") for s in seconds]


def _picture(found: Sequence[Day], classes: Sequence[str]) -> Any:
    shown = found[:MOST_LANES]
    on_calendar = {day.on_calendar for day in shown}
    told = [f"the first {MOST_LANES} of {len(found)} days of animals"] if len(found) > MOST_LANES else []
    if len(on_calendar) > 1:
        told.append("lanes of a date count from midnight, lanes of a day number from the animal's first recording")
    return timeline_figure(lanes(shown), classes, title="; ".join(told), clock=on_calendar <= {True})


def _about(results: Results) -> dict[str, Any]:
    checkpoint = results.checkpoint
    return {
        "model": checkpoint.reference,
        "weights_sha256": checkpoint.manifest["files"][WEIGHTS],
        "code": code_version(),
        "classes": None if results.classes is None else list(results.classes),
        **results.settings,
        "recordings_predicted": len(results.ethograms),
        "seconds": sum(e.duration_s for e in results.ethograms),
        "agreement": results.agreement,
        "notes": list(results.notes),
    }
