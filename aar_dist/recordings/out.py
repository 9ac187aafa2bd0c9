"""A data set folder that appears whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aar_dist.base.errors import StorageError
from aar_dist.base.storage import one_line_errors, publish, remove, staging_name


@contextmanager
def new_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A staging folder beside ``target`` that takes its name when the block ends well, and is gone otherwise.

    StorageError where ``target`` already holds something, unless ``overwrite``: it is then replaced at the end.
    """
    if not overwrite and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StorageError(f"{target}: already holds something; give another folder, or --overwrite to replace it")
    staging = staging_name(target)
    old = staging.with_name(f"{staging.name}-old")
    remove(staging)
    with _parents_of(target), one_line_errors(target, staging):
        staging.mkdir()
        yield staging
        if overwrite and target.exists():
            os.replace(target, old)
        publish(staging, target)
    remove(old)


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
