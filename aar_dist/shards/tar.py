"""An uncompressed POSIX tar, written once, the same bytes for the same members, hashed on the way.

members -> header + payload + padding -> file, sha256, and the place of each payload
"""

import hashlib
import io
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = tarfile.BLOCKSIZE


class TarWriter:
    """Writes members without time, owner or mode of this machine."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - closed by __exit__
        self._digest = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> "TarWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def sha256(self) -> str:
        """Hash of what has been written."""
        return self._digest.hexdigest()

    def add(self, name: str, *payload: bytes | memoryview) -> int:
        """Append a member made of these parts; the place of its payload in the file [bytes]."""
        size = sum(len(part) for part in payload)
        info = tarfile.TarInfo(name)
        info.size = size
        self._write(info.tobuf(tarfile.PAX_FORMAT))
        offset = self.size
        for part in payload:
            self._write(part)
        self._write(b"\0" * (-size % BLOCK))
        return offset

    def add_array(self, name: str, values: NDArray[Any]) -> int:
        """Append an array as .npy; the place of its first value in the file [bytes]."""
        values = np.ascontiguousarray(values)
        header = io.BytesIO()
        description = {"descr": values.dtype.str, "fortran_order": False, "shape": values.shape}
        np.lib.format.write_array_header_1_0(header, description)  # type: ignore[no-untyped-call]
        start = self.add(name, header.getvalue(), values.reshape(-1).view(np.uint8).data)
        return start + len(header.getvalue())

    def finish(self) -> None:
        """Write the end of the archive and let the file reach the disk."""
        self._write(b"\0" * (2 * BLOCK))
        self._file.flush()

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
