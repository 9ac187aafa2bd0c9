"""Columns of millions of rows with few different values: a code for each row, and the values once.

texts or lists of numbers -> codes (r,) int32 + values; groups of several columns -> codes
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aar_dist.stream.tape import Ints

Codes = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Coded:
    """A column (r, …) of few different values, indexed like the array it stands for."""

    codes: Codes
    """(r,) which of the values."""
    values: NDArray[Any]
    """(u, …)."""

    def __getitem__(self, index: Any) -> NDArray[Any]:
        rows, *rest = index if isinstance(index, tuple) else (index,)
        found: NDArray[Any] = self.values[(self.codes[rows], *rest)]
        return found

    def __len__(self) -> int:
        return len(self.codes)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.values[self.codes].astype(dtype or self.values.dtype, copy=False)

    def astype(self, dtype: Any) -> "Coded":
        """The column with values of another type."""
        return Coded(self.codes, self.values.astype(dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array it stands for."""
        return (len(self.codes), *self.values.shape[1:])

    def at(self, rows: Ints) -> "Coded":
        """The column of these rows."""
        return Coded(self.codes[rows], self.values)

    def max(self) -> Any:
        """The largest value, of a column in which every value stands."""
        return self.values.max()


def encoded(column: pa.ChunkedArray) -> tuple[Codes, list[str]]:
    """Codes and names of a text column, as they come."""
    array = column.unify_dictionaries().combine_chunks()
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    return array.indices.to_numpy(zero_copy_only=False), array.dictionary.to_pylist()


def rising(codes: Codes, names: list[str]) -> tuple[Codes, list[str]]:
    """The codes by the sorted names that occur, and those names."""
    occurs = np.flatnonzero(np.bincount(codes, minlength=len(names)))
    order = occurs[np.argsort(np.array([names[i] for i in occurs], dtype=object), kind="stable")]
    rank = np.zeros(len(names), np.int32)
    rank[order] = np.arange(len(order))
    return rank[codes], [names[i] for i in order]


def distinct(values: NDArray[Any]) -> tuple[Codes, Ints]:
    """A code for each of (r, …) values, by first appearance, and the row in which each code first stands.

    Rows like the one before are told apart no further: neighbours mostly come from one data set.
    """
    changes = values[1:] != values[:-1]
    starts = np.flatnonzero(np.append(True, changes.any(axis=1) if changes.ndim > 1 else changes))[: len(values)]
    few = values[starts]
    codes = _encode(few) if few.ndim == 1 else grouped(*(_encode(few[:, a]) for a in range(few.shape[1])))[0]
    first = np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=-1))
    return np.repeat(codes, np.diff(starts, append=len(values))), starts[first]


def grouped(*columns: NDArray[Any]) -> tuple[Codes, Ints]:
    """A code for each combination of codes (each 0 or more) that occurs, by first appearance, and its first row."""
    codes, first = distinct(columns[0])
    for column in columns[1:]:
        pair = codes.astype(np.int64)
        pair *= int(column.max(initial=0)) + 1
        pair += column
        codes, first = distinct(pair)
    return codes, first


def _encode(values: NDArray[Any]) -> Codes:
    codes: Codes = pa.array(values).dictionary_encode().indices.to_numpy()
    return codes


def padded(column: pa.ChunkedArray, width: int) -> NDArray[Any]:
    """A column of lists as (r, width), 0 where a list is shorter, cut off where it is longer: rows that are not drawn
    may have more axes. A view where all are as long."""
    lists = column.combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    flat: NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False)
    if (lengths == width).all():
        return flat.reshape(-1, width)
    out = np.zeros((len(lengths), width), flat.dtype)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    out[np.arange(width) < lengths[:, None]] = flat[place < width]
    return out
