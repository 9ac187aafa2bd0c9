"""Locks where a file system knows none."""

import errno
import fcntl

import pytest

from aar_dist.base.errors import PassingError, StorageError
from aar_dist.training.run_directory import RunDirectory


def test_a_file_system_without_locks_is_no_run_that_is_in_use(tmp_path, monkeypatch):
    def refuses(file, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    directory = RunDirectory(tmp_path)
    with directory.lock():
        assert directory.held().startswith("process ")
    monkeypatch.setattr(fcntl, "flock", refuses)
    for look in (directory.lock, directory.held):
        with pytest.raises(StorageError, match=r"cannot be locked .* -o flock") as told:
            look()
        assert not isinstance(told.value, PassingError)
