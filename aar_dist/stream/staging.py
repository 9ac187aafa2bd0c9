"""Shards of a source as open files: local ones as they stand, remote ones out of the cache.

    order of batches -> Scout: downloads ahead of need, several at a time
    batch at work    -> Staging.open(shard) -> file, locked in the cache while it is mapped

A remote shard is read whole into the cache before it is mapped. What is downloaded ahead is not held: it is the readers
that hold what they read, and let go of it soon after, so that another run or rank finds room.
"""

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aar_dist.base.cache import Cache
from aar_dist.base.cli import human_bytes
from aar_dist.base.errors import AarError, ConfigError, ShardError, StorageError
from aar_dist.base.remote import Remote, is_url
from aar_dist.base.room import NoRoom
from aar_dist.shards.checks import check_file
from aar_dist.stream.tape import Ints

HORIZON = 1024
"""Micro-batches that the scout looks ahead at most: planning them again costs a little."""
LOOK_EVERY_S = 0.1
TIDY_EVERY_S = 0.5
BUDGET = 0.9
"""Of what the cache may hold, shared by the ranks of this machine, for what is downloaded ahead."""


@dataclass(frozen=True)
class Shard:
    """One tar of a shard set."""

    name: str
    size: int
    """[bytes]"""
    sha256: str
    where: str
    """The shard set: a folder, or a URL."""

    @property
    def remote(self) -> bool:
        """True if it must be downloaded."""
        return is_url(self.where)

    @property
    def path(self) -> Path:
        """Of a local one."""
        assert not self.remote, "a remote shard is read through the cache"
        return Path(self.where) / self.name

    def __str__(self) -> str:
        return Remote(self.where).at(self.name) if self.remote else str(self.path)


class Staging:
    """Opens the shards of a source."""

    def __init__(self, shards: Sequence[Shard], cache: Cache | None) -> None:
        self.shards, self.cache = shards, cache

    def open(self, shard: int, give_way: Callable[[], bool] = lambda: False) -> BinaryIO:
        """The whole shard; while it is open, the cache keeps it. Raises ``ShardError``, ``StorageError``."""
        told = self.shards[shard]
        if not told.remote:
            check_file(told.path, told.size)
            return told.path.open("rb")
        assert self.cache is not None, "a source with remote shards has a cache"
        fetch = _fetch(told)
        return self.cache.hold(told.sha256, told.size, fetch, str(told), give_way=give_way).file

    def bring(self, shard: int) -> bool:
        """Download a shard unless it is there; False if the cache has no room."""
        told = self.shards[shard]
        assert self.cache is not None, "only remote shards are brought"
        try:
            self.cache.hold(told.sha256, told.size, _fetch(told), str(told), wait_s=0).close()
        except NoRoom:
            return False
        return True


@contextlib.contextmanager
def local_file(shard: Shard, cache: Cache | None) -> Iterator[Path]:
    """A path under which the whole shard can be read meanwhile; ``cache`` is for a remote one."""
    if not shard.remote:
        check_file(shard.path, shard.size)
        yield shard.path
        return
    with Staging([shard], cache).open(0) as file:
        yield Path(file.name)


def _fetch(shard: Shard) -> Callable[[Path], str]:
    return lambda part: Remote(shard.where).fetch(shard.name, part, shard.size)


def ranks_here() -> int:
    """Ranks on this machine, which share its cache."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1))


class Scout:
    """Walks the order of batches ahead of the readers and downloads what they will need, in that order.

    What it has asked for and the readers have not passed yet stays below its share of the cache's limit; the walk waits
    at the first shard beyond.
    """

    def __init__(
        self, staging: Staging, batches: Iterable[Ints], downloads: int, tidy: Callable[[], object] = lambda: None
    ) -> None:
        assert staging.cache is not None, "there is nothing to scout without remote shards"
        self._staging, self._cache, self._batches = staging, staging.cache, batches
        self._budget = int(BUDGET * min(staging.cache.limit, staging.cache.disk())) // ranks_here()
        self._asked: queue.Queue[int] = queue.Queue(maxsize=downloads)
        self._needed_until: dict[int, int] = {}
        self._passed = 0
        self._over = threading.Event()
        self._failed: AarError | None = None
        self._tidy = tidy
        self._cache.sweep()
        for number, work in enumerate([self._walk, self._tidy_up] + [self._download] * downloads):
            threading.Thread(target=work, name=f"scout {number}", daemon=True).start()

    def passed(self) -> None:
        """The readers are done with another batch. Raises what no other try would mend."""
        self._passed += 1
        if self._failed:
            raise self._failed

    def close(self) -> None:
        """End the walk; a download at work ends by itself."""
        self._over.set()

    def _walk(self) -> None:
        for number, shards in enumerate(self._batches):
            for shard in (s for s in shards.tolist() if self._staging.shards[s].remote):
                # After so long, another run may have evicted what was here.
                unseen = number - self._needed_until.get(shard, -HORIZON - 1) > HORIZON
                if unseen and number >= self._passed:
                    self._needed_until.pop(shard, None)
                    self._ask(shard)
                self._needed_until[shard] = number
            while number - self._passed > HORIZON and not self._over.wait(LOOK_EVERY_S):
                pass
            if self._over.is_set():
                return

    def _ask(self, shard: int) -> None:
        """Hand a shard to the downloaders as soon as there is room for it."""
        while not (self._has_room(self._staging.shards[shard].size) or self._over.wait(LOOK_EVERY_S)):
            pass
        for other in self._needed_until:  # least recently used is not what is needed next
            self._cache.touch(self._staging.shards[other].sha256)
        while not self._over.is_set():
            with contextlib.suppress(queue.Full):
                self._asked.put(shard, timeout=LOOK_EVERY_S)
                return

    def _has_room(self, size: int) -> bool:
        if self._total() + size <= self._budget:
            return True
        passed = self._passed
        self._needed_until = {s: until for s, until in self._needed_until.items() if until >= passed}
        return not self._needed_until or self._total() + size <= self._budget

    def _total(self) -> int:
        return sum(self._staging.shards[s].size for s in self._needed_until)

    def _tidy_up(self) -> None:
        """Now and then, also while nobody reads: what is held idle keeps others from their room."""
        while not self._over.wait(TIDY_EVERY_S):
            self._tidy()

    def _download(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(queue.Empty):
                shard = self._asked.get(timeout=LOOK_EVERY_S)
                try:
                    while not self._staging.bring(shard) and not self._over.wait(LOOK_EVERY_S):
                        pass
                except (StorageError, OSError):
                    continue  # the reader tries again, and says so
                except ShardError as error:
                    self._failed = error
                    self._over.set()


def check_limit(staging: Staging, batches: Iterable[Ints], readers: int) -> None:
    """Raise ``ConfigError`` if the batches that are cut at one time, by the ``readers`` of all ranks of this machine,
    need more than the cache may hold."""
    if staging.cache is None:
        return
    sizes = np.array([s.size if s.remote else 0 for s in staging.shards])
    one = max((int(sizes[shards].sum()) for shards in batches), default=0)
    most = min(one * readers * ranks_here(), int(sizes.sum()))
    if most > staging.cache.limit:
        raise ConfigError(
            f"data.cache_limit is {human_bytes(staging.cache.limit)} ({staging.cache.root}), but {ranks_here()} "
            f"rank(s), {readers} reader thread(s) each, cut from shards of {human_bytes(most)} at one time; set it to "
            f"at least {most}, or lower data.lanes"
        )
