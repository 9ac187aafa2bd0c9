"""Fur seals and sea lions (Ladds et al.): 12 animals of 3 species, acceleration in g at 25 or 20 Hz.

    data/{behaviour,behaviour_rawdata}/<animal>/<dd-mm-yy>.csv, data/animal_details2.csv

What is met on purpose:

- Two rates in one set, and a ``time`` column that cannot tell them (whole seconds, an invented date, sometimes empty):
  the rate is ``hz_nominal`` of the index file, so no start time is kept either.
- Gaps show only in the frame counter (column ``fps``, numbers after one to three rows of time code): where it leaps by
  more than its usual step, the recording is split. The index, where it counts gaps, must agree.
- mav 17-09-14 and ronnie 17-09-14 are one recording: the second is the first from row 714 on, to the last bit of
  ``x y z``, and two thirds of it are labelled otherwise. Whose it is cannot be told (see ``DISPUTED``).
- 118 rows say behaviour ``foraigng`` with type ``NA``: they are foraging, type Foraging (see ``CORRECTIONS``).
- ``animal_details2.csv`` has old Mac line ends, and names animals without recordings.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.columns import Columns, read_csv
from aar_dist.recordings.converter import About, Converter, Job, Options, Take
from aar_dist.recordings.write import SensorData, encode_labels

INDEX = "otariids_index.csv"
SPECIES = {"ASL": "australian_sea_lion", "AFS": "australian_fur_seal", "NZFS": "new_zealand_fur_seal"}
TYPES = ("Foraging", "Grooming", "Other", "Resting", "Travelling")
BEHAVIOURS = (
    "bowing", "chewing", "facerub", "fast", "feeding", "foraging", "grooming", "holdntear", "in", "jugging",
    "jump", "lying", "manipulation", "moving", "other", "out", "playing", "polarbear", "rubbing", "sailing",
    "scratch", "shake", "sitting", "slow", "stationary", "still", "swimming", "thrash",
)  # fmt: skip
CORRECTIONS = {("foraigng", "NA"): ("foraging", "Foraging")}
"""(behaviour, type) as published -> as meant."""
DISPUTED = ("behaviour_rawdata/mav/17-09-14.csv", "behaviour_rawdata/ronnie/17-09-14.csv")
CLASSES = {"type": TYPES, "behaviour": BEHAVIOURS}


def plan(folder: Path, options: Options) -> Sequence[Job]:
    """A job for each recording, by folder, animal and date."""
    paths = sorted(p for p in folder.rglob("behaviour*/*/*.csv"))
    details = next(iter(sorted(folder.rglob("animal_details2.csv"))), None)
    if not paths or details is None:
        raise RecordingError(
            f"{options.source}: holds no behaviour*/<animal>/<date>.csv with animal_details2.csv; "
            "give the folder above `data`"
        )
    species, index = read_species(details), _read_index(folder, options)
    label = CONVERTER.label(options)
    return [Job(_name(p), partial(_read, p, species, index, label)) for p in paths]


def read_species(details: Path) -> dict[str, str]:
    """Animal -> species, from a table whose lines may end in CR."""
    rows = csv.DictReader(io.StringIO(details.read_text(encoding="utf-8-sig"), newline=None))
    return {row["SealName"]: SPECIES.get(row["species"], row["species"].lower()) for row in rows}


def _read_index(folder: Path, options: Options) -> dict[str, Mapping[str, str]]:
    """Recording -> its row of the index file: --index, or the one beside or inside the source."""
    places = [options.index] if options.index else [options.source.with_name(INDEX), folder / INDEX]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise RecordingError(
            f"{places[0]}: no such file; the otariids' rates (25 or 20 Hz) stand only in an index with the columns "
            "folder, animal, date, hz_nominal: give it with --index"
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {f"{row['folder']}/{row['animal']}/{row['date']}.csv": row for row in csv.DictReader(file)}


def _name(path: Path) -> str:
    return "/".join(path.parts[-3:])


def _read(path: Path, species: Mapping[str, str], index: Mapping[str, Mapping[str, str]], label: str) -> list[Take]:
    name, animal = _name(path), path.parent.name
    if name not in index:
        raise RecordingError(f"{path}: is not in the index, so its rate is not known; add a row with hz_nominal")
    if animal not in species:
        raise RecordingError(f"{path}: animal {animal!r} is not in animal_details2.csv, so its species is not known")
    rate_hz = float(index[name]["hz_nominal"])
    columns = read_csv(path, text=("fps", "time", "behaviour", "type", "number", "raw", "date", "value"))
    labels, notes = _labels(columns, label)
    times, gaps = clock(columns["fps"], rate_hz)
    _check_gaps(path, gaps, index[name].get("time_gaps"))
    notes += [f"gap after row {row - 1}, where the frame counter leaps by {leap:,}: split" for row, leap in gaps]
    acc = SensorData(values=columns.numbers("xyz").astype(np.float32), rate_hz=rate_hz, units="g", axes=("x", "y", "z"))
    return [
        Take(
            source=name,
            species=species[animal],
            subject=animal,
            sensors={"acc": acc},
            label=labels,
            classes=CLASSES[label],
            timestamps_s=times,
            notes=tuple(f"{name}: {note}" for note in notes),
        )
    ]


def _labels(columns: Columns, label: str) -> tuple[NDArray[np.int16], list[str]]:
    """Class numbers (n,), and what had to be corrected."""
    behaviour, kind = columns["behaviour"].astype(object), columns["type"].astype(object)
    notes = []
    for wrong, right in CORRECTIONS.items():
        rows = (behaviour == wrong[0]) & (kind == wrong[1])
        if rows.any():
            behaviour[rows], kind[rows] = right
            notes.append(f"{int(rows.sum())} rows of {'/'.join(wrong)} taken as {'/'.join(right)}")
    try:
        return encode_labels((kind if label == "type" else behaviour).tolist(), CLASSES[label]), notes
    except RecordingError as error:
        raise RecordingError(f"{columns.path}: {error}") from error


def clock(counter: NDArray[Any], rate_hz: float) -> tuple[NDArray[np.float64], list[tuple[int, int]]]:
    """Seconds (n,) by the rate, with the leaps of the frame counter in between; and (row after it, leap) for each."""
    frames = np.array([int(c) if c.isdigit() else -1 for c in counter])
    steps = np.where((frames[1:] >= 0) & (frames[:-1] >= 0), np.diff(frames), 0)
    usual = max(1, int(np.median(steps)))
    rows = np.flatnonzero((steps > 2 * usual) | (steps < 0)) + 1
    seconds = np.arange(len(counter)) / rate_hz
    for row in rows:
        seconds[row:] += max(abs(int(steps[row - 1])) / usual, 2) / rate_hz
    return seconds, [(int(row), int(steps[row - 1])) for row in rows]


def _check_gaps(path: Path, gaps: Sequence[Any], told: str | None) -> None:
    if told not in (None, "") and int(told or 0) != len(gaps):
        raise RecordingError(f"{path}: the frame counter shows {len(gaps)} gaps, the index {told}; correct the index")


CONVERTER = Converter(
    name="otariids",
    dataset=lambda options: "otariids" if options.label in (None, "type") else f"otariids_{options.label}",
    plan=plan,
    disputed=DISPUTED,
    labels=("type", "behaviour"),
    takes=("index",),
    about=About(
        what="captive fur seals and sea lions, filmed: five types of behaviour, 28 behaviours",
        layout="data/{behaviour,behaviour_rawdata}/<animal>/<dd-mm-yy>.csv and data/animal_details2.csv",
        sensors="acc (g)",
        rate="25 or 20 Hz, by the index file (--index, or otariids_index.csv beside SOURCE)",
        labels=f"--label type: classes {', '.join(TYPES)} (default); "
        f"--label behaviour: classes {', '.join(BEHAVIOURS)}",
        who="12 animals of 3 species, 84 recordings (12 h)",
        licence="not stated; see publisher",
        source="https://github.com/MoniqueLadds/Time-energy_budgets_from_accelerometers (folder data; "
        "10.1371/journal.pone.0166898)",
        watch="depth and start times are left out (the time column is not to be trusted). Two gaps in files: split. "
        "One recording stands under two animals' names: both left out",
    ),
)
