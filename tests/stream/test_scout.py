"""What is downloaded ahead: in time, within its share, whatever else happens."""

import itertools
import threading
import time

import numpy as np
import pytest

from aar_dist.stream import staging
from aar_dist.stream.staging import Scout, Shard, Staging


class Room:
    """A cache that notes nothing."""

    limit = 1000

    def disk(self) -> int:
        return 10**9

    def sweep(self) -> None: ...
    def touch(self, sha256: str) -> None: ...


class Noted(Staging):
    """Notes what is brought."""

    def __init__(self, *shards: Shard, fails: dict[int, Exception] | None = None) -> None:
        super().__init__(shards, Room())
        self.brought: list[int] = []
        self.fails = fails or {}

    def bring(self, shard: int) -> bool:
        self.brought.append(shard)
        if shard in self.fails:
            raise self.fails[shard]
        return True


def shard(size: int, where: str = "http://somewhere") -> Shard:
    return Shard("a.tar", size, "0" * 64, where)


def until(true, timeout_s=20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(true())


@pytest.fixture
def scouting():
    scouts = []

    def start(staging, batches, downloads=1):
        scouts.append(Scout(staging, (np.array(shards) for shards in batches), downloads))
        return scouts[-1]

    yield start
    for scout in scouts:
        scout.close()


def test_shards_of_this_machine_take_no_share_of_the_cache(scouting):
    noted = Noted(shard(5000, "/a/folder"), shard(100))
    scouting(noted, [[0], [1], [0]])
    assert until(lambda: noted.brought == [1])


def test_what_was_not_needed_for_long_is_asked_for_again(scouting, monkeypatch):
    monkeypatch.setattr(staging, "HORIZON", 4)
    noted = Noted(shard(100), shard(100))
    scout = scouting(noted, [[0], *itertools.repeat([1], 6), [0], [1]])
    assert until(lambda: noted.brought == [0, 1])
    for _ in range(4):
        scout.passed()
    assert until(lambda: noted.brought == [0, 1, 0])


def test_a_download_that_fails_stops_no_other(scouting):
    noted = Noted(shard(100), shard(100), fails={0: PermissionError(13, "Permission denied", "part")})
    scouting(noted, [[0], [1]])
    assert until(lambda: noted.brought == [0, 1])


def test_its_threads_end(scouting):
    scout = scouting(Noted(shard(600), shard(600)), [[0], [1]], downloads=3)
    mine = {t for t in threading.enumerate() if t.name.startswith("scout")}
    assert len(mine) >= 5
    scout.close()
    assert until(lambda: not any(t.is_alive() for t in mine))
