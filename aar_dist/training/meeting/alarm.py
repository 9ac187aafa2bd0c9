"""One rank's error ends every rank, with the same line.

    a rank fails alone -> its line goes to the meeting's store -> read there by every rank's watcher -> exit 2
                                                                    rank 0 prints it, the others on their own terminals

A rank that waits in a collective for one that has failed would wait for ever, or until the collective breaks with words
that explain nothing. The store is the one over which the ranks met (rank 0 holds it); asking it takes no collective.
"""

import json
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch.distributed import Store  # type: ignore[attr-defined]

from aar_dist.base.errors import USER_ERROR_EXIT, AarError, error_line, last_word, one_line, user_error
from aar_dist.training.meeting.launcher import find_launcher
from aar_dist.training.ranks import Ranks

LOOK_EVERY_S = 1.0
GRACE_S = 0.5
"""An error that this rank has as well is raised here within this time, and told by rank 0 alone."""
ANSWER_S = 5.0
"""Longest wait of the failing rank for the others to have heard it."""
SAID, HEARD, SHARED, DONE = (f"aar_dist/alarm/{name}" for name in ("said", "heard", "shared", "done"))
MAIN_HOST, PRINTED = "aar_dist/alarm/main_host", "aar_dist/alarm/printed"
PULSE = "aar_dist/alarm/pulse"
CRASH_EXIT = 1

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())  # before a rank has its log file, the terminal has the line anyway


class Alarm:
    """This rank's end of it."""

    def __init__(self, ranks: Ranks, store: Store | None) -> None:
        self._ranks, self._store = ranks, store
        self._over = threading.Event()
        self._ending = threading.Lock()
        self._terminal = os.dup(2)  # the main thread may have muted its own
        if store is not None:
            if ranks.main:
                store.set(MAIN_HOST, platform.node())
            threading.Thread(target=self._watch, name="alarm", daemon=True).start()

    def raise_(self, error: AarError) -> None:
        """Tell all ranks that this one has failed, and wait until they know. Where another rank had failed before,
        this process ends here with that one's line."""
        line = error_line(error, self._name)
        log.error("%s", line)
        alone = self._tell(one_line(error), line, USER_ERROR_EXIT)
        error.alone, printed = bool(alone), alone is False
        with suppress(RuntimeError):
            printed |= self._store is not None and self._store.check([PRINTED])
        error.told = printed and not self._own_terminal()

    def _print(self, line: str) -> None:
        """On the terminal, and tell the others that it stands there."""
        with suppress(OSError):  # nobody listens any more
            os.write(self._terminal, f"{line}\n".encode())
        if self._ranks.main and self._store is not None:
            self._store.set(PRINTED, "1")

    def crashed(self, error: Exception) -> None:
        """Tell all ranks of our own mistake; its traceback is this rank's to print."""
        log.error("crashed", exc_info=error)
        text = f"{type(error).__name__}: {one_line(error)}"
        self._tell(text, f"error: {self._name or 'rank 0'} crashed: {text} (its traceback tells where)", CRASH_EXIT)

    def _tell(self, text: str, line: str, exit_code: int) -> bool | None:
        """True if others end because of this rank, and all of them know; False if another has told of the same error,
        which rank 0 prints; None if there is no saying."""
        self._over.set()
        if self._store is None:
            return None
        _be_heard()
        with suppress(RuntimeError):  # rank 0 is gone, and the store with it
            mine = {"rank": self._ranks.rank, "text": text, "line": line, "exit": exit_code}
            said = json.loads(self._store.compare_set(SAID, "", json.dumps(mine)))
            if said["text"] != text:
                self._end(said)
            if self._ranks.main:
                self._print(line)  # before the others leave: the launcher ends all when one has left
            if said["rank"] == self._ranks.rank:
                return self._told()
            self._count(SHARED)
            return False
        return None

    def look(self) -> None:
        """End this process with the line of the rank that has failed, if there is one."""
        with suppress(RuntimeError):
            if self._store is not None and self._store.check([SAID]):
                self._end(json.loads(self._store.get(SAID)))

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        if not self._ending.locked():
            os.close(self._terminal)

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
                self._store.add(f"{PULSE}/{self._ranks.rank}", 1)
                if self._store.check([SAID]) and not self._over.wait(GRACE_S):
                    self._end(json.loads(self._store.get(SAID)))

    def _end(self, said: dict[str, Any]) -> None:
        """Leave with another rank's error, in the middle of whatever this one waits for."""
        _be_heard()
        if not self._ending.acquire(blocking=False):  # the other thread is at it
            time.sleep(2 * ANSWER_S)
        log.error("%s", said["line"])
        with suppress(RuntimeError):
            if self._ranks.main or (self._ranks.local_rank == 0 and self._own_terminal()):
                self._print(said["line"])
            self._count(HEARD)
        sys.stdout.flush()
        logging.shutdown()
        os._exit(said["exit"])

    @property
    def _name(self) -> str:
        """This rank in an error: with its host, where that is not rank 0's; empty for rank 0."""
        if self._ranks.main:
            return ""
        return f"rank {self._ranks.rank}" + (f" on {platform.node()}" if self._elsewhere() else "")

    def _elsewhere(self) -> bool:
        """True on another host than rank 0's."""
        with suppress(RuntimeError):
            if self._store is not None and self._store.check([MAIN_HOST]):
                return bool(self._store.get(MAIN_HOST).decode() != platform.node())
        return False

    def _own_terminal(self) -> bool:
        """True if what this rank prints does not come to where rank 0's goes: on another host, under a launcher that
        was called there by hand (--no_ssh)."""
        return self._elsewhere() and find_launcher().here


def _be_heard() -> None:
    """We leave anyway, and have something to say: the launcher's SIGTERM is not waited for."""
    with suppress(ValueError):  # not in the main thread, where handlers cannot be set
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def alarm(ranks: Ranks, store: Store | None) -> Iterator[Alarm]:
    """Watch, and tell the other ranks of an error that leaves this context. ``store`` is a connection that nobody else
    uses: one that waits holds its lock."""
    watched = Alarm(ranks, store)
    try:
        yield watched
    except (AarError, OSError) as error:
        told = user_error(error)
        if told is None:
            watched.crashed(error)
            raise
        last_word(told).leave()  # now: the launcher may end this rank before its own exit
        watched.raise_(told)
        raise told from error
    except Exception as error:
        watched.look()  # perhaps a collective that broke because of another rank's
        watched.crashed(error)
        raise
    finally:
        watched.close()
