"""Files that appear whole or not at all.

    staging(final) -> write there -> publish(staging, final) = fsync + rename, never over an existing name
    write_text / write_json / write_bytes(path) = the same for one small file, replacing what stood there

A name that ends in ``STAGING_MARK`` plus owner is unfinished work; readers ignore it, ``sweep`` removes it.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aar_dist.base.errors import StorageError

STAGING_MARK = ".staging-"
CHUNK_BYTES = 1 << 22
ABANDONED_S = 86_400.0
FULL = (errno.ENOSPC, errno.EDQUOT)


def sha256(path: str | Path) -> str:
    """Hex sha256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def staging_name(final: str | Path) -> Path:
    """Where this thread writes what will become ``final``: a sibling, so that the rename stays in one file system."""
    final = Path(final)
    return final.with_name(
        f"{final.name}{STAGING_MARK}{socket.gethostname()}-{os.getpid()}-{threading.get_native_id()}"
    )


def is_staging(path: str | Path) -> bool:
    """True for the name of unfinished work."""
    return STAGING_MARK in Path(path).name


def is_abandoned(path: str | Path) -> bool:
    """True for unfinished work whose owner, of this machine, is gone, or on which nobody has worked for a day."""
    host, pid, _ = Path(path).name.rpartition(STAGING_MARK)[2].rsplit("-", 2)
    try:
        return (host == socket.gethostname() and not _lives(int(pid))) or _age_s(path) > ABANDONED_S
    except FileNotFoundError:
        return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _age_s(path: str | Path) -> float:
    return time.time() - os.stat(path).st_mtime


def remove(path: str | Path) -> None:
    """Remove a file or a folder; nothing happens if it is not there."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def sweep(folder: str | Path) -> list[Path]:
    """Remove all unfinished work in a folder of which the caller is the only writer; returns what was removed."""
    left = sorted(p for p in Path(folder).glob(f"*{STAGING_MARK}*"))
    for path in left:
        remove(path)
    return left


def fsync(path: str | Path) -> None:
    """Force a file, or a folder with everything below it, onto the disk."""
    path = Path(path)
    if path.is_dir():
        for child in path.iterdir():
            fsync(child)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(staging: str | Path, final: str | Path) -> Path:
    """Make finished work visible under its name. If the name is taken: ``FileExistsError``, both left alone."""
    staging, final = Path(staging), Path(final)
    fsync(staging)
    if staging.is_dir():
        # rename(2) onto a folder fails unless that one is empty, and an empty one is nobody's work.
        try:
            os.rename(staging, final)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, "already exists", str(final)) from None
            raise
    else:
        os.link(staging, final)
        os.unlink(staging)
    fsync_entry(final)
    return final


def replace(staging: str | Path, final: str | Path) -> Path:
    """Make a finished file visible under its name, in place of what stood there: where several write the same bytes."""
    fsync(staging)
    os.replace(staging, final)
    fsync_entry(Path(final))
    return Path(final)


def fsync_entry(path: Path) -> None:
    """Force the name of a file (the entry in its folder) onto the disk."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def one_line_errors(path: str | Path, *staged: str | Path) -> Iterator[None]:
    """Turn a refusal of the file system into one line about ``path``; unfinished work in ``staged`` is removed."""
    try:
        yield
    except OSError as error:
        for left in staged:
            remove(left)
        raise refused(path, error) from error
    except BaseException:
        for left in staged:
            remove(left)
        raise


def refused(path: str | Path, error: OSError) -> StorageError:
    """What the file system said, for the user."""
    if error.errno in FULL:
        free = _free_mb(Path(path))
        return StorageError(f"{path}: the disk is full ({free}); free space there or choose another folder")
    return StorageError(f"{path}: {error.strerror or error}")


def _free_mb(path: Path) -> str:
    there = next((p for p in (path, *path.parents) if p.exists()), Path("."))
    return f"{shutil.disk_usage(there).free / 1e6:.1f} MB left"


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write a small file so that a reader sees the old content or the new one, never half."""
    path = Path(path)
    staging = staging_name(path)
    with one_line_errors(path, staging):
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.write_bytes(data)
        replace(staging, path)
    return path


def write_text(path: str | Path, text: str) -> Path:
    """:func:`write_bytes` of UTF-8 text."""
    return write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> Path:
    """:func:`write_bytes` of indented JSON with a final newline."""
    return write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Indented JSON with a final newline."""
    return (json.dumps(value, indent=1) + "\n").encode()


def read_json(path: str | Path) -> Any:
    """What :func:`write_json` wrote."""
    return json.loads(Path(path).read_text())


def hash_tree(folder: str | Path) -> dict[str, str]:
    """Relative POSIX name -> sha256 of every file below a folder, sorted by name."""
    folder = Path(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): sha256(p) for p in files}


def damage(folder: str | Path, hashes: dict[str, str]) -> str | None:
    """The first file that is missing or differs from its sha256, in words; None if all are whole."""
    for name, expected in hashes.items():
        path = Path(folder) / name
        if not path.is_file():
            return f"{path} is missing"
        if (found := sha256(path)) != expected:
            return f"{path} is damaged: sha256 {found[:12]}, expected {expected[:12]}"
    return None
