"""The process beside rank 0 that sends what the run writes.

    python -m aar_dist.training.tracking.follower RUN online ATTEMPT

It reads files, and lives by its standard input: the end of that means that the run has left. So the run never waits for
a server, and a run that was killed is still told of. What it has to say goes to its standard output.
"""

import logging
import os
import select
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO

from aar_dist.base.errors import one_line
from aar_dist.training.tracking.mirror import forget
from aar_dist.training.tracking.record import Record
from aar_dist.training.tracking.sending import Sender, connect

POLL_S = 1.0
RETRY_S = (30.0, 60.0, 120.0, 300.0, 600.0)
"""Pauses after a server that did not answer; the last one again and again."""
FAREWELL_S = 90.0
"""Longest life after the run has left."""

log = logging.getLogger(__name__)


def main() -> None:
    """Follow one launch to its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # they are meant for the run, whose end is waited for
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _give_way()
    root, mode, attempt = sys.argv[1:]
    Follower(Record(Path(root)), mode, int(attempt), watches=os.getppid()).run()
    forget()


def _give_way() -> None:
    """The ranks come first; and the core that rank 0 may be bound to is its own."""
    os.nice(5)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


class Follower:
    """Sends for a launch while it goes on, and once more when it has left."""

    def __init__(self, record: Record, mode: str, attempt: int, *, watches: int) -> None:
        self.record, self.mode, self.attempt, self.watches = record, mode, attempt, watches
        self._sender: Sender | None = None
        self._turn: IO[str] | None = None
        self._failures, self._next_try_s = 0, 0.0

    def run(self) -> None:
        """Until the run has left, and everything is sent or cannot be."""
        left = False
        while not left:
            left = self._has_left()
            if left:
                _limit_life()
                self._note_death()
            self._pass(last=left)

    def _pass(self, *, last: bool) -> None:
        try:
            if self._sender is None and ((last and not self._failures) or time.monotonic() >= self._next_try_s):
                self._sender = self._connect()
            if self._sender and last:
                self._sender.close(ended=True)
                say(f"sent to step {self._sender.steps.last}")
            elif self._sender:
                self._sender.send_new()
        except Exception as error:  # whatever it is, the run does not need its mirror
            log.warning("sending failed", exc_info=True)
            self._failed(one_line(error))

    def _connect(self) -> Sender | None:
        if self.mode == "online" and self._turn is None:
            self._turn = self.record.take_turn()
            if self._turn is None:  # the follower of a launch that was killed has not finished, or somebody syncs
                return None
        sender = connect(self.record, mode=self.mode, folder=self.record.root, watches=self.watches)
        say(f"connected: {sender.mirror.url or sender.mirror.place}")
        if self.mode == "offline":
            sender.send_new()
            self._remove_older(sender.mirror.place)
        return sender

    def _remove_older(self, place: Path) -> None:
        """An offline folder holds the run from its beginning: those of earlier launches hold nothing that it lacks."""
        for older in self.record.folder.glob(f"offline-run-*-{self.record.run_id()}"):
            if older.resolve() != place.resolve():
                shutil.rmtree(older, ignore_errors=True)

    def _failed(self, why: str) -> None:
        self._next_try_s = time.monotonic() + RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        if not self._failures:
            say(f"failed: {why}")
        self._failures += 1
        self._sender, self._turn = None, None
        forget()

    def _has_left(self) -> bool:
        """Wait a moment for the end of the run."""
        return bool(select.select([sys.stdin], [], [], POLL_S)[0])

    def _note_death(self) -> None:
        """A run that left without a word was killed."""
        if self.record.finished is None and self.record.end_of(self.attempt) is None:
            name = self.record.root.name
            self.record.end_attempt(self.attempt, "failed")
            self.record.add_alert(
                "run died", f"{name} left without a word: rank 0 was killed, or ran out of memory", "error"
            )


def _limit_life() -> None:
    timer = threading.Timer(FAREWELL_S, lambda: os._exit(1))
    timer.daemon = True
    timer.start()


def say(text: str) -> None:
    """A line for the run, if it still listens."""
    log.info(text)
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
