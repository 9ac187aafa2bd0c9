"""Where a converter reads from: a folder, or the published archive itself.

SOURCE (folder, .tar, .tar.xz, .tar.gz, .zip) -> a folder
"""

import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aar_dist.base.errors import RecordingError


@contextmanager
def open_source(source: Path) -> Iterator[Path]:
    """The folder of the published files; an archive is unpacked for the time of the block.

    RecordingError where there is nothing, or where an archive is damaged or would write outside its folder.
    """
    if source.is_dir():
        yield source
        return
    if not source.exists():
        raise RecordingError(
            f"{source}: no such file or folder; give the published archive, or the folder it unpacks to"
        )
    with tempfile.TemporaryDirectory(prefix="aar-dist-") as folder:
        _unpack(source, Path(folder))
        yield Path(folder)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _refuse_escapes(archive, packed.namelist())
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise RecordingError(f"{archive}: not readable as an archive ({error}); download it again") from error
    except OSError as error:
        # A damaged .gz stream is an OSError without a number; the disk's own have one.
        if error.errno is not None:
            raise
        raise RecordingError(f"{archive}: not readable as an archive ({error}); download it again") from error


def _refuse_escapes(archive: Path, names: list[str]) -> None:
    """A zip member that climbs out would be renamed in silence; a tar's is refused by its filter."""
    for name in names:
        if name.startswith("/") or ".." in Path(name).parts:
            raise RecordingError(
                f"{archive}: member {name!r} lies outside the archive's folder; do not trust this file"
            )
