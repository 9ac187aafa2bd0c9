"""Files of remote places on this machine: immutable, addressed by their sha256, shared by all ranks and runs.

    <cache>/<2 hex>/<sha256>                 a whole file; its modification time is the time of its last use, set here
            <2 hex>/<sha256>.<bytes>.part    a download at work; it counts with all the bytes it is going to have
            lock                             held for the moment in which room is made (room.py)

    hold(sha256, bytes, fetch) -> Blob, locked and whole -> close(): it may be evicted from now on

Every lock is a flock on the file that it protects: the kernel releases it when a process ends, however it ends. A
download holds its part exclusively, a reader shares the lock of what it reads, and only what nobody holds is evicted,
least recently used first.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable
from hashlib import sha256 as hashed
from pathlib import Path
from typing import BinaryIO

from aar_dist.base import storage
from aar_dist.base.cli import human_bytes
from aar_dist.base.errors import ShardError, StorageError
from aar_dist.base.locks import LOOK_EVERY_S, locked, opened, removed, stands_at, wait_for
from aar_dist.base.room import NoRoom, Room

ENVIRONMENT = "AAR_DIST_CACHE"
DEFAULT = "~/.cache/aar_dist"
WRONG_HASHES = 3
"""Downloads with a wrong hash, one after the other, that are an error."""
ROOM_WAIT_S = 30.0
"""Longest wait for others to let go of what fills the cache."""
DISK_WAIT_S = 30.0
"""Longest wait for room on a disk that is full, though nothing is left to evict."""
DISK_TRIES = 10
"""Downloads that a full disk may end: others, too, write to what is freed."""

Fetch = Callable[[Path], str]
"""Writes the file at a path and returns its sha256."""
GiveWay = Callable[[], bool]
"""Lets go of files that its owner can spare; False if there are none."""


class Blob:
    """A file of the cache, open; it is neither evicted nor changed before ``close``."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file

    def close(self) -> None:
        """Let go of it."""
        self.file.close()

    def __enter__(self) -> "Blob":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Cache(Room):
    """Brings files in and hands them out."""

    @classmethod
    def of(cls, folder: str | None = None, limit: int | None = None) -> "Cache":
        """The cache at ``folder``, or where the environment or the default says.

        Args:
            folder: None for the variable AAR_DIST_CACHE, else ~/.cache/aar_dist.
            limit: Bytes; None for half of what the disk has for it: free space and what is cached.
        """
        made = cls(Path(folder or os.environ.get(ENVIRONMENT) or DEFAULT).expanduser(), 0)
        return cls(made.root, made.disk() // 2 if limit is None else limit)

    def path(self, sha256: str) -> Path:
        """Where a file stands, if it is there."""
        return self.root / sha256[:2] / sha256

    def hold(
        self,
        sha256: str,
        n_bytes: int,
        fetch: Fetch,
        name: str,
        *,
        give_way: GiveWay = lambda: False,
        wait_s: float = ROOM_WAIT_S,
    ) -> Blob:
        """The file, downloaded if it is not there: by one process of this machine, for which the others wait.

        Args:
            sha256: Of the whole file.
            n_bytes: Its size.
            fetch: Downloads it.
            name: Where it comes from, for messages.
            give_way: Asked when there is no room.
            wait_s: Longest wait for others to let go of theirs. 0: ``NoRoom`` at once, and a full disk is left to those
                who need the file now.

        Raises:
            ShardError: what was downloaded has another hash, three times.
            StorageError: the cache has no room, the disk is full, or ``fetch`` gave up.
        """
        if n_bytes > self.limit:
            raise self._too_small(n_bytes, name)
        deadline = time.monotonic() + wait_s
        while True:
            if blob := self.look(sha256, n_bytes):
                return blob
            try:
                self._download(sha256, n_bytes, fetch, name, give_way if wait_s else None)
            except NoRoom as full:
                if give_way():
                    continue
                if wait_s == 0:
                    raise
                if full.passing:
                    deadline = time.monotonic() + wait_s
                if time.monotonic() > deadline:
                    raise self._too_small(full.minimum, name) from None
                time.sleep(LOOK_EVERY_S)

    def look(self, sha256: str, n_bytes: int | None = None) -> Blob | None:
        """The file if it is there; its use is noted. One of another size is damaged, and gone."""
        path = self.path(sha256)
        while (file := opened(path)) is not None:
            fcntl.flock(file, fcntl.LOCK_SH)
            if not stands_at(file, path):  # evicted meanwhile
                file.close()
            elif n_bytes is not None and os.fstat(file.fileno()).st_size != n_bytes:
                file.close()
                if not removed(path):
                    raise ShardError(f"{path}: not of {n_bytes} bytes any more, and in use; remove it by hand")
            else:
                with contextlib.suppress(OSError):  # another user's, or of a disk that is only read
                    os.utime(file.fileno())
                return Blob(path, file)
        return None

    def touch(self, sha256: str) -> None:
        """Note that a file will be used, if it is there."""
        with contextlib.suppress(OSError):
            os.utime(self.path(sha256))

    def small(self, sha256: str, read: Callable[[], bytes], name: str) -> bytes:
        """The content of a file whose size is not known before; from the cache if it is there and whole. A cache
        without room for it stops nothing. What is read with a wrong hash, three times, is the caller's to refuse."""
        if blob := self.look(sha256):
            with blob:
                data = blob.file.read()
            if hashed(data).hexdigest() == sha256:
                return data
            removed(blob.path)
        for _ in range(WRONG_HASHES):
            data = read()
            if hashed(data).hexdigest() == sha256:
                break
        else:
            return data
        if len(data) <= self.limit:
            with contextlib.suppress(NoRoom, StorageError):
                self.hold(sha256, len(data), lambda part: _written(part, data), name, wait_s=0).close()
        return data

    def _download(self, sha256: str, n_bytes: int, fetch: Fetch, name: str, give_way: GiveWay | None) -> None:
        """Bring the file in, or wait until whoever is at it is done."""
        path = self.path(sha256)
        part = path.with_name(f"{sha256}.{n_bytes}.part")
        with storage.one_line_errors(self.root):
            claim = self._claim(part)
        if claim is None:
            wait_for(part)
            return
        with claim:
            try:
                if path.exists():  # the one before us was just done
                    part.unlink()
                    return
                self._fill(part, sha256, name, lambda: self._fetched(part, n_bytes, fetch, give_way))
                with storage.one_line_errors(path):
                    storage.fsync(part)
                    with self._alone():  # who lists the folder meanwhile may see neither of the two names
                        os.rename(part, path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    def _fill(self, part: Path, sha256: str, name: str, fetched: Callable[[], str]) -> None:
        found = ""
        for _ in range(WRONG_HASHES):
            found = fetched()
            if found == sha256:
                return
        raise ShardError(
            f"{name}: sha256 {found}, expected {sha256}: wrong {WRONG_HASHES} times; the file there is damaged or of "
            "another build, copy the whole shard set there again"
        )

    def _fetched(self, part: Path, n_bytes: int, fetch: Fetch, give_way: GiveWay | None) -> str:
        """Download; where the disk is full, again when there is room for it."""
        for last in (False,) * (DISK_TRIES - 1) + (True,):
            try:
                return fetch(part)
            except (OSError, StorageError) as error:
                if not _disk_is_full(error) or give_way is None or last:
                    raise
            os.truncate(part, 0)
            self._free_the_disk(n_bytes, give_way)
        raise AssertionError("the last try returns or raises")

    def _free_the_disk(self, n_bytes: int, give_way: GiveWay) -> None:
        """Evict until the disk has so many bytes, and wait for others to let go of theirs. Raises ``StorageError``."""
        deadline = time.monotonic() + DISK_WAIT_S
        while (lacking := n_bytes - shutil.disk_usage(self.root).free) > 0:
            if self._evict(lacking) or give_way():
                continue
            if time.monotonic() > deadline:
                left = human_bytes(shutil.disk_usage(self.root).free)
                raise StorageError(
                    f"{self.root}: the disk is full ({left} left) and nothing in the cache can go; free space there, "
                    "or name another folder in data.cache"
                )
            time.sleep(LOOK_EVERY_S)

    def _claim(self, part: Path) -> BinaryIO | None:
        """The part, locked, with room made for it; None if another process or thread is at it. Raises ``NoRoom``."""
        part.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            file = part.open("ab")
            if not (locked(file) and stands_at(file, part)):  # another's, or by now the whole file
                file.close()
                return None
            try:
                self._make_room(part)
            except NoRoom:
                part.unlink()
                file.close()
                raise
        return file

    def _too_small(self, minimum: int, name: str) -> StorageError:
        return StorageError(
            f"data.cache_limit is {human_bytes(self.limit)} ({self.root}), but with {name} and all that is in use at "
            f"once it takes {human_bytes(minimum)}; set it to at least {minimum}"
        )


def _disk_is_full(error: BaseException) -> bool:
    chain = (error, error.__cause__, error.__context__)
    return any(isinstance(e, OSError) and e.errno in storage.FULL for e in chain)


def _written(part: Path, data: bytes) -> str:
    part.write_bytes(data)
    return hashed(data).hexdigest()
