"""Sizes of the pages of a Parquet file, as their own headers tell them.

The footer of a file may say what it likes: what a reader unpacks, and finds memory for, is told by the header before
each page (Thrift's compact protocol; https://github.com/apache/parquet-format, PageHeader).
"""

from collections.abc import Iterator
from typing import Any

MOST_HEADER, FEW = 65_536, 256
MOST_DEPTH = 8
BOOLEANS, BYTE, DOUBLE, TEXT, LISTS, STRUCT = (1, 2), 3, 7, 8, (9, 10), 12
NUMBERS = (4, 5, 6)
UNPACKED, PACKED = 2, 3  # fields of a PageHeader


def page_sizes(file: Any, metadata: Any) -> Iterator[int]:
    """Bytes of each page once it is unpacked. Raises ``ValueError`` for what is no page."""
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            # 0 stands for no dictionary, as in a table without rows.
            place = min(p for p in (column.dictionary_page_offset, column.data_page_offset) if p)
            end = place + column.total_compressed_size
            while place < end:
                header, n_bytes = _header_at(file, place)
                if min(header.get(UNPACKED, -1), header.get(PACKED, -1)) < 0:
                    raise ValueError("a page without a size")
                yield header[UNPACKED]
                place += n_bytes + header[PACKED]


def _header_at(file: Any, place: int) -> tuple[dict[int, int], int]:
    """Numbers of a page header by field, and its length [bytes]."""
    for most in (FEW, MOST_HEADER):
        file.seek(place)
        reader = _Reader(file.read(most))
        try:
            return reader.struct(), reader.at
        except IndexError:
            continue
    raise ValueError("a page header without end")


class _Reader:
    """Reads a struct; keeps its whole numbers, skips all else. Raises ``IndexError`` at the end of the bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def struct(self, depth: int = 0) -> dict[int, int]:
        if depth > MOST_DEPTH:
            raise ValueError("a page header that is too deep")
        numbers, field = {}, 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._number()
            kind = head & 15
            if kind in NUMBERS:
                numbers[field] = self._number()
            else:
                self._skip(kind, depth, boolean_is_told=True)
        return numbers

    def _skip(self, kind: int, depth: int, *, boolean_is_told: bool) -> None:
        if kind in BOOLEANS:
            self.at += not boolean_is_told
        elif kind in NUMBERS:
            self._number()
        elif kind == STRUCT:
            self.struct(depth + 1)
        elif kind in LISTS:
            self._skip_list(depth)
        elif kind in (BYTE, DOUBLE):
            self.at += 1 if kind == BYTE else 8
        elif kind == TEXT:
            n_bytes = self._varint()
            self.at += n_bytes
        else:
            raise ValueError("a page header that is none")

    def _skip_list(self, depth: int) -> None:
        head = self._byte()
        n = self._varint() if head >> 4 == 15 else head >> 4
        for _ in range(min(n, MOST_HEADER)):
            self._skip(head & 15, depth, boolean_is_told=False)

    def _number(self) -> int:
        n = self._varint()
        return (n >> 1) ^ -(n & 1)

    def _varint(self) -> int:
        n = shift = 0
        while True:
            byte = self._byte()
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n
            if shift > 63:
                raise ValueError("a number that is too long")

    def _byte(self) -> int:
        byte = self._data[self.at]
        self.at += 1
        return byte
