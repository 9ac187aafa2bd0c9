"""One rank's error ends every rank, with the same line.

    a rank fails alone -> its line goes to the group's store -> read there by every rank's watcher -> printed, exit 2

A rank that waits in a collective for one that has failed would wait for ever, or until the collective breaks with words
that explain nothing. The store is the one over which the ranks met (rank 0 holds it); asking it takes no collective.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from aar_dist.base.errors import USER_ERROR_EXIT, AarError, error_line, last_word, one_line, user_error
from aar_dist.training.ranks import Ranks

LOOK_EVERY_S = 1.0
GRACE_S = 0.5
"""An error that this rank has as well is raised here within this time, and told by rank 0 alone."""
ANSWER_S = 5.0
"""Longest wait of the failing rank for the others to have heard it."""
SAID, HEARD, SHARED, DONE = (f"aar_dist/alarm/{name}" for name in ("said", "heard", "shared", "done"))

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())  # before a rank has its log file, the terminal has the line anyway


class Alarm:
    """This rank's end of it."""

    def __init__(self, ranks: Ranks, store: Store | None) -> None:
        self._ranks, self._store = ranks, store
        self._over = threading.Event()
        self._ending = threading.Lock()
        if store is not None:
            threading.Thread(target=self._watch, name="alarm", daemon=True).start()

    def raise_(self, error: AarError) -> None:
        """Tell all ranks that this one has failed, and wait until they know. Where another rank had failed before,
        this process ends here with that one's line."""
        self._over.set()
        if self._store is None:
            return
        with suppress(RuntimeError):  # rank 0 is gone, and the store with it
            mine = {"rank": self._ranks.rank, "text": one_line(error), "line": error_line(error, self._ranks.rank)}
            said = json.loads(self._store.compare_set(SAID, "", json.dumps(mine)))
            if said["text"] != mine["text"]:
                self._end(said)
            if said["rank"] != self._ranks.rank:
                self._count(SHARED)
            elif self._told():
                error.alone = True

    def look(self) -> None:
        """End this process with the line of the rank that has failed, if there is one."""
        with suppress(RuntimeError):
            if self._store is not None and self._store.check([SAID]):
                self._end(json.loads(self._store.get(SAID)))

    def close(self) -> None:
        """Stop watching."""
        self._over.set()

    def _told(self) -> bool:
        """Wait until all others know; True if one of them had no such error itself."""
        assert self._store is not None, "there are others"
        deadline, heard = time.monotonic() + ANSWER_S, 0
        while time.monotonic() < deadline:
            heard, shared = self._store.add(HEARD, 0), self._store.add(SHARED, 0)
            if heard + shared >= self._ranks.world_size - 1:
                break
            time.sleep(0.05)
        self._store.set(DONE, "1")
        self._stay()
        return heard > 0

    def _count(self, key: str) -> None:
        """Answer the rank that has failed, and wait until all have: a rank that left would break the collective in
        which the others wait."""
        assert self._store is not None, "there are others"
        self._store.add(key, 1)
        deadline = time.monotonic() + ANSWER_S
        while not self._store.check([DONE]) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._stay()

    def _stay(self) -> None:
        """Rank 0 holds the store and leaves last: the others are about to see that all is said."""
        if self._ranks.main:
            time.sleep(0.5)

    def _watch(self) -> None:
        assert self._store is not None, "there are others"
        with suppress(RuntimeError):  # the store is gone with rank 0: a broken collective tells of it
            while not self._over.wait(LOOK_EVERY_S):
                if self._store.check([SAID]) and not self._over.wait(GRACE_S):
                    self._end(json.loads(self._store.get(SAID)))

    def _end(self, said: dict[str, Any]) -> None:
        """Leave with another rank's error, in the middle of whatever this one waits for."""
        if not self._ending.acquire(blocking=False):  # the other thread is at it
            time.sleep(2 * ANSWER_S)
        log.error("%s", said["line"])
        print(said["line"], file=sys.stderr, flush=True)
        with suppress(RuntimeError):
            self._count(HEARD)
        sys.stdout.flush()
        logging.shutdown()
        os._exit(USER_ERROR_EXIT)


@contextmanager
def alarm(ranks: Ranks) -> Iterator[Alarm]:
    """Watch, and tell the other ranks of a user error that leaves this context. The process group must stand."""
    watched = Alarm(ranks, _store() if ranks.world_size > 1 else None)
    try:
        yield watched
    except RuntimeError:  # perhaps a collective that broke because of it
        watched.look()
        raise
    except (AarError, OSError) as error:
        told = user_error(error)
        if told is None:
            raise
        last_word(told).leave()  # now: the launcher may end this rank before its own exit
        watched.raise_(told)
        raise told from error
    finally:
        watched.close()


def _store() -> Store:
    """A connection of our own: the group's waits, with its lock held, for what other ranks have not said yet."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=30), wait_for_workers=False)
