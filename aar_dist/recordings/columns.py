"""Columns of a published CSV or Parquet file, as arrays.

file, separator, decimal -> {column: array}        text stays text, integers stay integers
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from aar_dist.base.errors import RecordingError

_INT16 = np.iinfo(np.int16)


class Columns:
    """The columns of one file by name; asking for one that is not there is a RecordingError with the nearest name."""

    def __init__(self, path: Path, table: Any) -> None:
        if not table.num_rows:
            raise RecordingError(f"{path}: holds no rows; leave it out")
        self.path = path
        self._table = table
        try:
            self._names: list[str] = table.column_names
        except UnicodeDecodeError as error:
            raise RecordingError(f"{path}: the names of the columns are not UTF-8; save the file as UTF-8") from error

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> NDArray[Any]:
        """(n,) values of a column; numbers have NaN, and text has "" where a cell is empty."""
        if name not in self._names:
            near = get_close_matches(name, self._names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self._names)}"
            raise RecordingError(f"{self.path}: has no column {name!r}; {hint}")
        if self._names.count(name) > 1:
            raise RecordingError(f"{self.path}: has {self._names.count(name)} columns {name!r}; rename all but one")
        column = self._table[name]
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            return np.array([text or "" for text in column.to_pylist()], dtype=str)
        values: NDArray[Any] = column.to_numpy()
        return values

    def text(self, name: str) -> NDArray[Any]:
        """(n,) cells of a column as text."""
        return self[name].astype(str)

    def has_zone(self, name: str) -> bool:
        """Whether a column of dates and times knows its time zone; its values are then in UTC."""
        kind = self._table.schema.field(name).type
        return pa.types.is_timestamp(kind) and kind.tz is not None

    def numbers(self, names: Sequence[str]) -> NDArray[Any]:
        """(n, columns) as they should be stored: int16 where all are integers that fit, otherwise float32."""
        columns = [self[name] for name in names]
        for name, column in zip(names, columns, strict=True):
            if column.dtype.kind not in "iuf":
                raise RecordingError(
                    f"{self.path}: column {name!r} holds text such as {_odd_cell(column)!r}, not numbers"
                )
        values = np.column_stack(columns)
        if values.dtype.kind in "iu" and values.size and _INT16.min < values.min() and values.max() <= _INT16.max:
            return values.astype(np.int16)
        return values.astype(np.float32)


def read_csv(path: Path, *, text: Sequence[str] = (), separator: str = ",", decimal: str = ".") -> Columns:
    """A CSV file with a header line (a byte-order mark and any line ends are met); ``text`` columns are not parsed."""
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(text, pa.string()), strings_can_be_null=False, decimal_point=decimal
    )
    try:
        table = pyarrow.csv.read_csv(
            path, parse_options=pyarrow.csv.ParseOptions(delimiter=separator), convert_options=convert
        )
    except pa.ArrowInvalid as error:
        raise RecordingError(f"{path}: not readable as CSV: {error}") from error
    return Columns(path, table)


def read_parquet(path: Path) -> Columns:
    """A Parquet file."""
    try:
        return Columns(path, pyarrow.parquet.read_table(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise RecordingError(f"{path}: not readable as Parquet: {error}") from error


def _odd_cell(column: NDArray[Any]) -> str:
    """The first cell that is no number."""
    for cell in column:
        try:
            float(cell)
        except (TypeError, ValueError):
            return str(cell)
    return str(column[0])
