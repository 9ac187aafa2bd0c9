"""Locks on files that other processes may remove or replace meanwhile.

    opened -> locked (exclusive) or shared -> stands_at: is it still the file of that name? -> removed

A flock belongs to an open file, and the kernel releases it when the last descriptor of it is closed, by a kill as well.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import IO, Any, BinaryIO

from aar_dist.base.errors import StorageError

LOOK_EVERY_S = 0.05


def opened(path: Path) -> BinaryIO | None:
    """The file, or None if there is none of that name."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def locked(file: IO[Any]) -> bool:
    """Take the exclusive lock if it is free. Raises ``StorageError`` where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageError(
            f"{file.name} cannot be locked ({error.strerror}): mount its file system with locks (Lustre: -o flock), or "
            "choose another folder"
        ) from None
    return True


def stands_at(file: BinaryIO, path: Path) -> bool:
    """True if the path still names the file that was opened."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def removed(path: Path) -> bool:
    """Remove a file that nobody holds; False if somebody does."""
    file = opened(path)
    if file is None:
        return True
    with file:
        if not locked(file):
            return False
        if stands_at(file, path):
            path.unlink()
        return True


def wait_for(part: Path) -> None:
    """Until a download is done, or its process is gone."""
    while (file := opened(part)) is not None:
        with file:
            if locked(file):
                return
        time.sleep(LOOK_EVERY_S)
