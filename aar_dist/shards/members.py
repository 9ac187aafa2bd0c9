"""What is in a shard, looked at while its bytes come, without unpacking or holding any of it.

    bytes -> Members.write(piece) … -> arrays: member -> Place of its values;  problem: what no shard of ours holds

Streaming needs no look at members: rows of the manifest tell where samples lie. Other programs unpack them, follow
links and unpickle, so that ``aar-dist verify`` lets only plain names, plain files and arrays of numbers pass.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from aar_dist.shards.checks import DTYPES, Problem, refuse

BLOCK = tarfile.BLOCKSIZE
MOST_HEAD = 4096
"""Bytes of a member that are looked at: the header of an array has 128."""
MOST_TEXT = 1_000_000
NAME = re.compile(r"[^/\\.\x00-\x1f\x7f][^/\\.\x00-\x1f\x7f]*\.([^/\\\x00-\x1f\x7f]+\.npy|json)")


@dataclass(frozen=True)
class Place:
    """Where the values of an array lie in the shard."""

    offset: int
    """[bytes]"""
    shape: tuple[int, ...]
    dtype: str


class Members:
    """A file to write a shard of ``size`` bytes to. Nothing is kept but the places of arrays."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.truncate()

    def seek(self, place: int) -> int:
        """Only to the beginning, and followed by ``truncate``."""
        assert place == 0, "a shard is looked at from the beginning"
        return 0

    def truncate(self) -> int:
        """Forget what has come."""
        self.arrays: dict[str, Place] = {}
        self.texts: list[tuple[int, int]] = []
        """Where the JSON of each sample lies, and its size [bytes]."""
        self.problem: Problem = None
        self._n = self._skip = 0
        self._name = ""
        self._ended = False
        self._expect(self._header, BLOCK)
        return 0

    def write(self, piece: Any) -> int:
        """Look at the next bytes; the first problem stays."""
        view = memoryview(piece)
        while view and not self.problem:
            n = min(len(view), self._skip or self._wanted - len(self._held))
            self._n += n
            if self._skip:
                self._skip -= n
            else:
                self._held += view[:n]
                if len(self._held) == self._wanted:
                    self._next(bytes(self._held))
            view = view[n:]
        return len(piece)

    def follow(self, file: IO[bytes]) -> None:
        """Look at an open file, without reading what need not be looked at."""
        while not self.problem and (piece := file.read(self._wanted - len(self._held))):
            self.write(piece)
            file.seek(self._skip, io.SEEK_CUR)
            self._n, self._skip = self._n + self._skip, 0

    def finish(self, rows: Iterable[tuple[str, Place]]) -> Problem:
        """What is wrong with the whole shard, given where the manifest's rows say that values lie."""
        if self.problem:
            return self.problem
        if not self._ended:
            return "the archive has no end"
        for name, place in rows:
            if self.arrays.get(name) != place:
                return f"the manifest says {name} is {place}, the shard holds {self.arrays.get(name, 'no such member')}"
        return None

    def _expect(self, then: Any, wanted: int) -> None:
        self._next, self._wanted, self._held = then, wanted, bytearray()

    def _header(self, block: bytes) -> None:
        self._expect(self._header, BLOCK)
        if not any(block):
            self._ended = True
            return
        if self._ended:
            self.problem = "something stands behind the end of the archive"
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            self.problem = f"no header of a member at {self._n - BLOCK} ({error})"
            return
        self._member(info)

    def _member(self, info: tarfile.TarInfo) -> None:
        if not 0 <= info.size <= self._size - self._n:
            self.problem = f"member {info.name[:80]!r} claims {info.size} bytes of a shard of {self._size}"
        elif info.type == tarfile.XHDTYPE and info.size <= MOST_HEAD:
            self._padding = -info.size % BLOCK
            self._expect(self._long_name, info.size)
        elif info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            self.problem = f"member {info.name[:80]!r} is a link, a folder or a device, expected plain files"
        else:
            self._named(self._name or info.name, info.size)
            self._name = ""

    def _long_name(self, record: bytes) -> None:
        """The name of the next member, too long or too foreign for its own header."""
        match = re.fullmatch(rb"(\d+) path=([^\n]+)\n", record)
        if match is None or int(match[1]) != len(record):
            self.problem = f"an extended header says more than a name: {record[:80]!r}"
            return
        self._name = match[2].decode(errors="replace")
        self._check_name(self._name)
        self._skip = self._padding
        self._expect(self._header, BLOCK)

    def _named(self, name: str, size: int) -> None:
        self._check_name(name)
        if name in self.arrays:
            self.problem = f"member {name[:80]!r} stands there twice"
        elif name.endswith(".npy"):
            head = min(size, MOST_HEAD)
            self._padding = -size % BLOCK + size - head
            self._size_of_member, self._name_of_member = size, name
            self._expect(self._array, head)
            if head == 0:
                self._array(b"")
        elif size > MOST_TEXT:
            self.problem = f"member {name[:80]!r} has {size} bytes, expected at most {MOST_TEXT}"
        else:
            self.texts.append((self._n, size))
            self._skip = size + -size % BLOCK

    def _check_name(self, name: str) -> None:
        if not NAME.fullmatch(name):
            self.problem = f"member {name[:80]!r} is no <key>.<sensor>.npy or <key>.json"

    def _array(self, head: bytes) -> None:
        begin = self._n - len(head)
        self._skip = self._padding
        self._expect(self._header, BLOCK)
        place = array_at(head, begin, self._size_of_member)
        if isinstance(place, str):
            self.problem = f"member {self._name_of_member[:80]!r}: {place}"
        else:
            self.arrays[self._name_of_member] = place


def descriptions(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON of each sample of a shard. Raises ``ShardError`` where one does not tell whose it is."""
    members = Members(path.stat().st_size)
    with path.open("rb") as file:
        members.follow(file)
        refuse(path, members.problem)
        for place, size in members.texts:
            file.seek(place)
            try:
                told = json.loads(file.read(size))
                datetime.fromisoformat(told["start_time"] or "2000-01-01")
                good = isinstance(told["dataset"], str) and isinstance(told["recording"], str)
            except (ValueError, KeyError, TypeError, RecursionError):
                good = False
            refuse(path, None if good else f"the JSON at {place} does not describe a sample")
            yield told


def array_at(head: bytes, begin: int, size: int) -> Place | str:
    """Where the values of a .npy of ``size`` bytes at ``begin`` lie; or what is wrong with it."""
    file = io.BytesIO(head)
    try:
        if np.lib.format.read_magic(file) != (1, 0):  # type: ignore[no-untyped-call]
            return "another version of .npy than 1.0"
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return "is no .npy"
    if dtype.hasobject or dtype.str not in DTYPES:
        return f"holds {dtype}, expected numbers ({' '.join(DTYPES)}): it could run code where it is unpickled"
    n_values = 1
    for n in shape:
        n_values *= n
    if fortran or not 1 <= len(shape) <= 2 or min(shape) < 0 or file.tell() + n_values * dtype.itemsize != size:
        return f"has shape {shape}, which is not what it holds"
    return Place(begin + file.tell(), shape, dtype.str)
