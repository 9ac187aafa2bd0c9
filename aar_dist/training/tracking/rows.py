"""From the lines of ``metrics.jsonl`` to one row for each step, while the file grows.

    lines -> Tail -> rows -> Steps -> (step, everything that was said of it)

A tracker takes one row for a step and never another of the same step, but a step has several lines: training, then its
validation. So a step is handed on when the next one has begun, or when nothing more can come.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
BLOCK = 1 << 20


class Tail:
    """The whole lines that were added to a file since the last look, from the beginning if it was written anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode, self._offset = -1, 0

    def rows(self) -> Iterator[Row]:
        """New rows. A last line without its end is left for the next look."""
        try:
            file = open(self.path, "rb")  # noqa: SIM115 (closed below, and a missing file is no error)
        except FileNotFoundError:
            return
        with file:
            self._find_place(file.fileno())
            file.seek(self._offset)
            rest = b""
            while block := file.read(BLOCK):
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    self._offset += len(line) + 1
                    if line.strip():
                        yield json.loads(line)

    def _find_place(self, descriptor: int) -> None:
        now = os.fstat(descriptor)
        if now.st_ino != self._inode or now.st_size < self._offset:  # a resume cuts the file and writes it anew
            self._inode, self._offset = now.st_ino, 0


class Steps:
    """Rows of a run after a step, one for each step, rising."""

    def __init__(self, path: Path, after: int) -> None:
        self._tail = Tail(path)
        self.last = after
        """Last step that was handed on."""
        self._open: Row | None = None

    def new(self) -> Iterator[tuple[int, Row]]:
        """(step, its row) of every step that the next one has followed."""
        for row in self._tail.rows():
            if self._open is not None and row["step"] == self._open["step"]:
                self._open |= row
                continue
            yield from self._close()
            self._open = dict(row)

    def rest(self) -> Iterator[tuple[int, Row]]:
        """The last step, once nothing more can come of it."""
        yield from self._close()

    @property
    def open(self) -> Row | None:
        """What is known of the last step, if it was not handed on."""
        return self._open if self._open is not None and self._open["step"] > self.last else None

    def _close(self) -> Iterator[tuple[int, Row]]:
        row = self.open
        self._open = None
        if row is not None:
            self.last = int(row["step"])
            yield self.last, {k: math.nan if v is None else v for k, v in row.items() if k != "step"}
