"""A data set folder that appears whole or not at all."""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aar_dist.base.errors import StorageError
from aar_dist.base.storage import STAGING_MARK, one_line_errors, publish, remove, staging_name

_REPLACED = "-replaced"
_OWNER = re.compile(rf"(?P<host>.+)-(?P<process>\d+)-\d+(?:{_REPLACED})?")


@contextmanager
def new_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A staging folder beside ``target`` that takes its name when the block ends well, and is gone otherwise.

    StorageError where ``target`` already holds something, unless ``overwrite``: it is then replaced at the end.
    What a killed process left of the same target is swept away first.
    """
    sweep_abandoned(target)
    if not overwrite and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StorageError(f"{target}: already holds something; give another folder, or --overwrite to replace it")
    staging = staging_name(target)
    replaced = staging.with_name(f"{staging.name}{_REPLACED}")
    remove(staging)
    with _parents_of(target), one_line_errors(target, staging):
        staging.mkdir()
        yield staging
        if overwrite and target.exists():
            os.replace(target, replaced)
        publish(staging, target)
    remove(replaced)


def sweep_abandoned(target: Path) -> None:
    """Remove what processes that are no more have left of ``target``; one that was being replaced is put back."""
    mark = f"{target.name}{STAGING_MARK}"
    folder = target.parent
    left = [p for p in folder.iterdir() if p.name.startswith(mark)] if folder.is_dir() else []
    for path in left:
        if not _is_abandoned(path.name.removeprefix(mark)):
            continue
        if path.name.endswith(_REPLACED) and not target.exists():
            with one_line_errors(path):
                os.replace(path, target)
        remove(path)


def _is_abandoned(owner: str) -> bool:
    """Whether the owner in a staging name is a process of this machine that has ended; others cannot be asked."""
    named = _OWNER.fullmatch(owner)
    if named is None or named["host"] != socket.gethostname():
        return False
    try:
        os.kill(int(named["process"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


@contextmanager
def _parents_of(target: Path) -> Iterator[None]:
    """The folders above ``target``; those made here are gone again when the block fails."""
    missing = [folder for folder in target.parents if not folder.exists()]
    with one_line_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
