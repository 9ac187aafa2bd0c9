"""What a shard set holds, for people: a table of data sets and splits, balance, labels; the same as a picture.

manifest + labels -> Summary -> text | JSON | figure
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from aar_dist.base.cli import human_bytes
from aar_dist.base.plots import plain
from aar_dist.base.remote import Remote, is_url
from aar_dist.shards.format import read_info, read_labels, read_manifest

BAR = 24


@dataclass(frozen=True, kw_only=True)
class Part:
    """One data set in one split."""

    dataset: str
    split: str
    subjects: int
    recordings: int
    hours: float
    """Of recordings, a sensor counted once."""
    sensors: dict[str, list[float]]
    """Sensor -> its rates [Hz]."""
    shards: int
    bytes: int
    spread: float
    """(largest - smallest) / largest shard, the last of the data set aside."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A whole shard set."""

    path: str
    identity: str
    parts: tuple[Part, ...]
    label_hours: dict[str, dict[str, float]]
    """Data set -> class -> hours."""
    overlap: float
    """Bytes stored twice at chunk borders, as a share of the recorded ones."""
    packing: tuple[dict[str, Any], ...]
    """Of each packed sensor of a data set: format, grid, worst error, recordings that were kept as recorded."""
    notes: tuple[str, ...]

    def as_json(self) -> str:
        """The summary as indented JSON."""
        return json.dumps(asdict(self), indent=1)


def summarize(location: Path | str) -> Summary:
    """Read the manifest and labels of a shard set, in a folder or at a URL, and sum them up."""
    info = read_info(location)
    table = read_manifest(location, info)
    labels = read_labels(location, info)
    keys = sorted((r["dataset"], r["split"]) for r in table.group_by(["dataset", "split"]).aggregate([]).to_pylist())
    totals = {"recordings": 0, "shorter_than_longest_segment": 0, "overlap": 0.0} | info["totals"]
    notes = [f"left out: {error}" for error in info["skipped"]]
    if short := totals["shorter_than_longest_segment"]:
        seconds = info["options"]["longest_segment_s"]
        notes.append(
            f"{short} of {totals['recordings']} recordings are shorter than the longest segment ({seconds:g} s)"
        )
    splits: dict[str, set[str]] = {}
    for dataset, split in keys:
        splits.setdefault(dataset, set()).add(split)
    notes += [f"{d}: every subject is in {next(iter(s))}" for d, s in splits.items() if len(s) == 1]
    return Summary(
        path=str(Remote(str(location))) if is_url(location) else str(location),
        identity=info["identity"],
        parts=tuple(_part(table, *key) for key in keys),
        label_hours=_label_hours(labels, list(splits)),
        overlap=totals["overlap"],
        packing=tuple(info.get("packing", ())),
        notes=tuple(notes),
    )


def _part(table: pa.Table, dataset: str, split: str) -> Part:
    rows = table.filter(pc.and_(pc.equal(table["dataset"], dataset), pc.equal(table["split"], split)))
    sensor, rate = np.array(rows["sensor"].to_pylist()), rows["rate_hz"].to_numpy()
    seconds = rows["owned_starts"].to_numpy() / rate
    rates = {str(s): sorted(set(rate[sensor == s].tolist())) for s in np.unique(sensor)}
    sizes = dict(zip(rows["shard"].to_pylist(), rows["shard_bytes"].to_pylist(), strict=True))
    full = [sizes[name] for name in sorted(sizes)][:-1] or list(sizes.values())
    return Part(
        dataset=dataset,
        split=split,
        subjects=len(pc.unique(rows["subject"])),
        recordings=len(pc.unique(rows["recording"])),
        hours=max(float(seconds[sensor == s].sum()) for s in rates) / 3600,
        sensors=rates,
        shards=len(sizes),
        bytes=sum(sizes.values()),
        spread=(max(full) - min(full)) / max(full),
    )


def _label_hours(labels: pa.Table, datasets: list[str]) -> dict[str, dict[str, float]]:
    hours: dict[str, dict[str, float]] = {name: {} for name in datasets}
    seconds = pc.subtract(labels["stop_s"], labels["start_s"])
    runs = labels.select(["dataset", "class"]).append_column("s", seconds).group_by(["dataset", "class"])
    for total in runs.aggregate([("s", "sum")]).to_pylist():
        of, name = hours.setdefault(total["dataset"], {}), total["class"] or "(a number)"
        of[name] = total["s_sum"] / 3600
    return {name: dict(sorted(of.items(), key=lambda item: -item[1])) for name, of in hours.items()}


def render(summary: Summary) -> str:
    """The summary as text for a terminal or a log."""
    # Names are shown as they are, not as markup.
    console = Console(width=120, record=True, markup=False, emoji=False, file=open("/dev/null", "w"))  # noqa: SIM115
    table = Table(title=f"{summary.path}  ({summary.identity[:12]})", title_justify="left")
    for name in ("data set", "split", "subjects", "recordings", "hours", "sensors [Hz]", "shards", "size", "spread"):
        table.add_column(name, justify="left" if name in ("data set", "split", "sensors [Hz]") else "right")
    for p in summary.parts:
        sensors = ", ".join(f"{s} {' and '.join(f'{r:g}' for r in rates)}" for s, rates in p.sensors.items())
        table.add_row(
            p.dataset, p.split, str(p.subjects), str(p.recordings), f"{p.hours:.2f}", sensors,
            str(p.shards), human_bytes(p.bytes), f"{100 * p.spread:.2f} %",
        )  # fmt: skip
    console.print(table)
    console.print(f"overlap of neighbouring chunks: {100 * summary.overlap:.2f} % of the bytes", highlight=False)
    for packed in summary.packing:
        console.print(_packing_line(packed), highlight=False, soft_wrap=True)
    for dataset, of in summary.label_hours.items():
        if of:
            console.print(f"hours labelled in {dataset}", highlight=False)
        for name, hours in of.items():
            bar = "█" * max(1, round(BAR * hours / max(of.values())))
            console.print(f"  {name:<22} {hours:8.3f}  {bar}", highlight=False)
    for note in summary.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    return console.export_text()


def _packing_line(packed: Mapping[str, Any]) -> str:
    """One packed sensor in words."""
    kept = packed["kept"]
    if not packed["recordings"]:
        return (
            f"not packed: {packed['dataset']} {packed['sensor']}: none of {len(kept)} recordings fits "
            f"{packed['format']} within --max_pack_error; all stay as recorded"
        )
    stay = f"; kept as recorded, because they do not fit: {len(kept)}, such as {kept[0]}" if kept else ""
    of_std, of_range = (100 * max(packed[name]) for name in ("error_of_std", "error_of_range"))
    return (
        f"packed {packed['dataset']} {packed['sensor']} as {packed['format']}: {packed['recordings']} recordings, "
        f"worst error {max(packed['error']):.2g} {packed['units']}, {of_std:.2g} % of the deviation and "
        f"{of_range:.2g} % of the range{stay}"
    )


def figure(summary: Summary) -> Figure:
    """Hours per data set and split, and hours per class."""
    labelled = {d: of for d, of in summary.label_hours.items() if of}
    fig = Figure(figsize=(9, 2.6 + 2.6 * len(labelled)), layout="constrained")
    axes = fig.subplots(1 + len(labelled), 1, squeeze=False)[:, 0]
    names = sorted({p.dataset for p in summary.parts})
    left = np.zeros(len(names))
    for split, colour in (("train", "#3b6ea5"), ("val", "#e0a030")):
        hours = [sum(p.hours for p in summary.parts if (p.dataset, p.split) == (d, split)) for d in names]
        axes[0].barh(list(map(plain, names)), hours, left=left, color=colour, label=split)
        left += hours
    axes[0].set_xlabel("hours recorded")
    axes[0].legend(loc="best")
    axes[0].set_title(f"{plain(Path(summary.path).name)}: data sets and splits")
    for axis, (dataset, of) in zip(axes[1:], labelled.items(), strict=True):
        axis.barh([plain(name) for name in of][::-1], list(of.values())[::-1], color="#5a9367")
        axis.set_xlabel("hours labelled")
        axis.set_title(f"{plain(dataset)}: classes")
    return fig
