"""Which data a model was made from.

manifests of the shard sets -> Part of each data set -> a table in Markdown
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aar_dist.recordings.licences import SIMULATED, licence_of
from aar_dist.shards.format import read_info, read_manifest
from aar_dist.stream.source import Source

COLUMNS = ["dataset", "species", "subject", "location", "sensor", "rate_hz", "owned_starts"]


@dataclass(frozen=True)
class Part:
    """One data set."""

    dataset: str
    species: tuple[str, ...]
    subjects: int
    hours: float
    """Of recordings, a sensor counted once."""
    sensors: dict[str, list[float]]
    """Sensor -> its rates [Hz]."""
    simulated: bool


def data_part(source: Source, datasets: Sequence[str], channels: Sequence[str]) -> list[str]:
    """Markdown: a table of the data sets, and their licences.

    Args:
        datasets: Those that the model was made from.
        channels: Those that it was given, such as ``acc.x``.
    """
    parts = list(parts_of(source, datasets, {name.partition(".")[0] for name in channels}))
    lines = ["", "## Data", "", "| data set | species | subjects | hours | sensors [Hz] |", "|---|---|---|---|---|"]
    for p in parts:
        sensors = ", ".join(f"{name} {' and '.join(f'{r:g}' for r in rates)}" for name, rates in p.sensors.items())
        lines.append(f"| {p.dataset} | {', '.join(p.species)} | {p.subjects} | {p.hours:.2f} | {sensors} |")
    lines += ["", f"Channels: {', '.join(channels)}. Shard set {source.identity[:12]}.", ""]
    return lines + [f"- licence of {p.dataset}: {_licence(p)}" for p in parts]


def parts_of(source: Source, datasets: Sequence[str], sensors: set[str]) -> Iterator[Part]:
    """What the manifests tell of each data set; of all its sensors where none of ``sensors`` is one of them."""
    tables = [read_manifest(folder, read_info(folder), COLUMNS, source.cache) for folder in source.folders]
    table = pa.concat_tables([table.unify_dictionaries() for table in tables], promote_options="default")
    for name in sorted(datasets):
        rows = table.filter(pc.equal(table["dataset"], name))
        of_model = rows.filter(pc.is_in(rows["sensor"].cast(pa.string()), pa.array(sorted(sensors), pa.string())))
        if len(rows):
            yield _part(name, of_model if len(of_model) else rows)


def _part(name: str, rows: pa.Table) -> Part:
    sensor, rate = np.array(rows["sensor"].to_pylist()), rows["rate_hz"].to_numpy()
    seconds = rows["owned_starts"].to_numpy() / rate
    sensors = {str(s): sorted(set(rate[sensor == s].tolist())) for s in np.unique(sensor)}
    return Part(
        dataset=name,
        species=tuple(sorted({str(s) for s in rows["species"].to_pylist() if s})),
        subjects=len(pc.unique(rows["subject"])),
        hours=max(float(seconds[sensor == s].sum()) for s in sensors) / 3600,
        sensors=sensors,
        simulated=set(rows["location"].to_pylist()) == {"simulated"},
    )


def _licence(part: Part) -> str:
    if part.simulated:
        return SIMULATED
    text, source = licence_of(part.dataset)
    return f"{text} ({source})" if source else text
