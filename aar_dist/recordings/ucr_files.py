"""The two text forms of the UCR and UEA archives: one series a line.

    .tsv    label, then the values, separated by tabs; NaN where missing, and behind the end of shorter series
    .ts     `@` lines that say what follows, then one dimension behind another, `:` between them, the label last

path -> SeriesFile (lines, nothing parsed but the header and the labels) -> values (n, dimensions)
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import RecordingError

MISSING = ("?", "")
_CLASS, _TARGET = "classlabel", "targetlabel"
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class SeriesFile:
    """One published file."""

    path: Path
    lines: Sequence[tuple[int, str, Sequence[str]]]
    """(number in the file, label, one text for each dimension); the label is empty where there is none."""
    separator: str
    """Between the values of a dimension."""
    classes: tuple[str, ...] | None
    """None where the label is a target, or where there is none."""
    target: bool = False


def read_file(path: Path) -> SeriesFile:
    """The lines of a .tsv or .ts file. RecordingError where it is neither, or empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path}: not UTF-8 text ({error}); download it again") from error
    rows = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    file = _read_ts(path, rows) if path.suffix == ".ts" else _read_tsv(path, rows)
    if not file.lines:
        raise RecordingError(f"{path}: holds no series; download it again")
    return file


def parse_values(file: SeriesFile, number: int, dimensions: Sequence[str]) -> tuple[NDArray[np.float32], int]:
    """Values (n, dimensions) of a line, without the missing ones behind the end; and how many those are.

    What is missing elsewhere is NaN.
    """
    what = f"{file.path}: line {number}"
    try:
        columns = [[_number(cell) for cell in text.split(file.separator)] for text in dimensions]
    except ValueError as error:
        raise RecordingError(f"{what}: {error}; expected numbers, and `?` or NaN where missing") from error
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise RecordingError(
            f"{what}: its dimensions have {min(lengths)} to {max(lengths)} values; expected one length"
        )
    values = np.array(columns, np.float64).T.astype(np.float32)
    known = np.flatnonzero(np.isfinite(values).any(axis=1))
    if not len(known):
        raise RecordingError(f"{what}: every value is missing; leave this series out")
    end = int(known[-1]) + 1
    return values[:end], len(values) - end


def class_name(text: str) -> str:
    """``1``, ``1.0`` and ``1.0000000e+00`` are one class."""
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def in_order(classes: Iterable[str]) -> tuple[str, ...]:
    """Numbers as numbers, other names behind them."""
    return tuple(sorted(set(classes), key=lambda c: (float(c), "") if _NUMBER.fullmatch(c) else (np.inf, c)))


def _read_tsv(path: Path, rows: Sequence[tuple[int, str]]) -> SeriesFile:
    lines = []
    for number, row in rows:
        label, tab, values = row.partition("\t")
        if not tab:
            raise RecordingError(f"{path}: line {number} has no tab; expected a label and values, separated by tabs")
        lines.append((number, class_name(label), (values,)))
    classes = in_order({label for _, label, _ in lines})
    return SeriesFile(path=path, lines=lines, separator="\t", classes=classes)


def _read_ts(path: Path, rows: Sequence[tuple[int, str]]) -> SeriesFile:
    header: dict[str, list[str]] = {}
    for place, (_, row) in enumerate(rows):
        if row.lower() == "@data":
            body = rows[place + 1 :]
            break
        if row.startswith("@"):
            key, *words = row.removeprefix("@").split()
            header[key.lower()] = words
    else:
        raise RecordingError(f"{path}: has no line @data; it is not a .ts file, or cut short")
    if _says(header, "timestamps"):
        raise RecordingError(f"{path}: @timestamps true: series with times of their own are not read; resample them")
    labelled, target = _says(header, _CLASS), _says(header, _TARGET)
    lines = []
    for number, row in body:
        *dimensions, last = row.split(":")
        label = ("" if last.strip() in MISSING else last.strip()) if labelled or target else ""
        lines.append((number, label, dimensions if labelled or target else [*dimensions, last]))
    classes = tuple(header[_CLASS][1:]) if labelled else None
    if labelled and not classes:
        raise RecordingError(f"{path}: @classLabel true names no classes; write them behind it")
    return SeriesFile(path=path, lines=lines, separator=",", classes=classes, target=target)


def _says(header: dict[str, list[str]], key: str) -> bool:
    """Whether a line ``@key true`` stands in the header."""
    return header.get(key, ["false"])[:1] == ["true"]


def _number(cell: str) -> float:
    value = np.nan if cell.strip() in MISSING else float(cell)
    if np.isinf(value):
        raise ValueError(f"an infinite value {cell.strip()!r}")
    return value
