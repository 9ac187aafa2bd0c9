"""Where a shard set is built: a folder, or a URL.

    site_of(location) -> begin(plan) -> workers write shards and their rows -> rows(shard) -> write(…) -> end()

Both hold one build at a time, take up one that was killed, and show a manifest only when all else is there.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Protocol

from aar_dist.base import storage
from aar_dist.base.errors import ShardError
from aar_dist.base.remote import Missing, Remote, is_url
from aar_dist.shards.format import BUILD_FOLDER, MANIFEST
from aar_dist.shards.lease import Lease

PLAN = f"{BUILD_FOLDER}/plan"


class Site(Protocol):
    """A place to build at."""

    def is_finished(self) -> bool:
        """True if a whole shard set is there."""

    def begin(self, plan: str) -> None:
        """Take the place, or take up the build that was killed there. Raises ``ShardError``."""

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file, which appears whole."""

    def tidy(self) -> None:
        """Remove what workers that died have left of unfinished files."""

    def end(self) -> None:
        """Remove the traces of the build, and let go."""

    def let_go(self) -> None:
        """Leave the place as it is, for the same build to go on."""


def site_of(location: Path | str) -> Site:
    """The site at a path or a URL."""
    return UrlSite(Remote(str(location))) if is_url(location) else FolderSite(Path(location))


def rows_name(shard: str) -> str:
    """Where the rows of a written shard wait for the manifest."""
    return f"{BUILD_FOLDER}/{shard}.json"


class FolderSite:
    """A folder; a lock of the kernel tells whether a builder lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: IO[str] | None = None

    def __str__(self) -> str:
        return str(self._folder)

    def is_finished(self) -> bool:
        return (self._folder / MANIFEST).exists()

    def begin(self, plan: str) -> None:
        work, marker = self._folder / BUILD_FOLDER, self._folder / PLAN
        if marker.is_file() and marker.read_text() != plan:
            raise _other_build(self._folder)
        if not marker.is_file() and self._folder.is_dir() and set(self._folder.iterdir()) - {work}:
            raise _not_empty(self._folder)
        with storage.one_line_errors(self._folder):
            work.mkdir(parents=True, exist_ok=True)
            self._held = open(work / "lock", "w")  # noqa: SIM115 - held as long as the build
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ShardError(
                f"{self._folder}: another build is at work here; wait for it or choose another folder"
            ) from None
        self.tidy()
        storage.write_text(marker, plan)

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        storage.write_bytes(self._folder / name, data)

    def tidy(self) -> None:
        storage.sweep(self._folder)

    def end(self) -> None:
        storage.remove(self._folder / BUILD_FOLDER)
        self.tidy()
        self.let_go()

    def let_go(self) -> None:
        if self._held:
            self._held.close()


class UrlSite:
    """A folder of an object store; a lease tells whether a builder lives."""

    def __init__(self, remote: Remote) -> None:
        self._remote, self._lease = remote, Lease(remote, BUILD_FOLDER)
        self._taken = False

    def __str__(self) -> str:
        return str(self._remote)

    def is_finished(self) -> bool:
        return self._remote.exists(MANIFEST)

    def begin(self, plan: str) -> None:
        found = self._plan()
        if found is None and any(not name.startswith(f"{BUILD_FOLDER}/") for name in self._remote.names()):
            raise _not_empty(self._remote)
        if found is None and not self._remote.write(PLAN, plan.encode(), only_if_new=True):
            found = self._plan()  # somebody was quicker
        if found not in (None, plan):
            raise _other_build(self._remote)
        self._lease.take()
        self._taken = True

    def _plan(self) -> str | None:
        try:
            return self._remote.read(PLAN, 1000).decode(errors="replace")
        except Missing:
            return None

    def read(self, name: str) -> bytes:
        return self._remote.read(name)

    def write(self, name: str, data: bytes) -> None:
        self._lease.check()
        self._remote.write(name, data)

    def tidy(self) -> None:
        """An object appears whole; there is nothing unfinished."""

    def end(self) -> None:
        # The plan goes first: a worker that was thought dead writes nothing once it is gone.
        names = self._remote.names(f"{BUILD_FOLDER}/")
        for name in sorted(names, key=lambda name: name != PLAN):
            self._remote.delete(name)
        self.let_go()

    def let_go(self) -> None:
        if self._taken:
            self._lease.close()


def _other_build(where: object) -> ShardError:
    return ShardError(
        f"{where}: holds an unfinished build of other recordings or options; "
        "run that one again, remove the folder or choose another --output_folder"
    )


def _not_empty(where: object) -> ShardError:
    return ShardError(f"{where}: not empty, and not a shard set; choose a new --output_folder")


@contextlib.contextmanager
def nameless_file() -> Iterator[Path]:
    """A path to a file on the local disk that no folder names: it is gone with the process, however that ends."""
    with storage.one_line_errors(gettempdir()), TemporaryFile(prefix="aar-dist-") as file:
        yield Path(f"/proc/self/fd/{file.fileno()}")
