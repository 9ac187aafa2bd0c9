"""A rank that hangs ends the job, and is named.

    no beat for health.hang_timeout_s -> this rank asks all, over the store -> each writes its stacks and answers
    rank 0 -> who is silent, who is behind -> one line, exit HANG_EXIT

Every step is collective, so all ranks stall with one: until then nothing is sent but a look, every few seconds, at
whether somebody asks. A rank that is stopped is woken by its neighbour on the same host to write its stacks. If it is
rank 0, which holds the store, another one speaks.
"""

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil

from aar_dist.base.last_word import LastWord
from aar_dist.training.health.bounded import Bounded
from aar_dist.training.health.config import HealthConfig
from aar_dist.training.health.pulse import Pulse, Standing
from aar_dist.training.health.stacks import Stacks
from aar_dist.training.health.talk import Talk
from aar_dist.training.health.verdict import Place, silent, verdict
from aar_dist.training.ranks import Ranks, to_all

HANG_EXIT = 5
LONGEST_LOOK_S = 10.0
"""Between two looks."""
ANSWER_S = 5.0
"""Longest wait for an answer of the store, or of a rank beyond the time between two looks."""
WAKE_S = 2.0
"""For a rank that was stopped to write its stacks."""

Found = dict[str, Any]
"""``by`` whom, ``text``, ranks that were ``silent``, ``step``."""
Tell = Callable[[str, int], None]
"""Given what was found, and the step."""

log = logging.getLogger(__name__)


class Watch:
    """A thread of this rank that looks whether its pulse beats."""

    def __init__(
        self, ranks: Ranks, places: list[Place], stacks: Stacks, pulse: Pulse, config: HealthConfig, talk: Talk | None
    ) -> None:
        self._ranks, self._places, self._stacks, self._talk = ranks, places, stacks, talk
        self.pulse = pulse
        self._config = config
        self._every_s = min(LONGEST_LOOK_S, (config.hang_timeout_s or LONGEST_LOOK_S) / 4)
        self._over = threading.Event()
        self._woken_s = -math.inf
        self._woke_others = False
        self.tell: Tell = lambda text, step: None

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def close(self) -> None:
        """Stop looking."""
        self._over.set()

    def _watch(self) -> None:
        quiet, count, before = 0.0, -1, time.monotonic()
        while not self._over.wait(self._every_s):
            now = time.monotonic()
            passed, before = now - before, now
            if passed > self._every_s + ANSWER_S:
                self._woken_s = now
            self._stacks.guard(self._limit_s() + 2 * self._every_s + ANSWER_S)
            # Time in which the whole process was stopped is nobody's fault: Ctrl-Z on all ranks is no hang.
            quiet = 0.0 if count != self.pulse.count else quiet + min(passed, 2 * self._every_s)
            count = self.pulse.count
            if quiet >= self._limit_s() or (self._talk and self._talk.asked(ANSWER_S)):
                self._confer(quiet)

    def _limit_s(self) -> float:
        return self._config.slow_timeout_s if self.pulse.slow else self._config.hang_timeout_s or math.inf

    def _slept(self) -> bool:
        """True if this process was stopped until a moment ago."""
        return time.monotonic() - self._woken_s < self._every_s + 2 * ANSWER_S

    def _confer(self, quiet_s: float) -> None:
        """Find out together who holds up the others, and end."""
        self.pulse.hold()
        mine = self.pulse.standing()
        said = f"no progress for {quiet_s:.0f} s: rank {self._ranks.rank} stands in {mine}"
        Bounded(lambda: self._stacks.write(said)).wait(ANSWER_S)
        Bounded(lambda: log.error("%s", said)).wait(ANSWER_S)
        answer = {"slept": self._slept(), **mine.to_dict()}
        reached = self._talk is not None and self._talk.answer(self._ranks.rank, answer, ANSWER_S)
        if self._ranks.main or not reached:
            self._judge(mine, quiet_s)
        self._await_verdict(quiet_s)

    def _judge(self, mine: Standing, quiet_s: float) -> None:
        """Rank 0's part; that of the others if rank 0 does not answer. Returns if another rank speaks."""
        if self._talk and self._talk.verdict(ANSWER_S):
            return
        # Where the others stand, only rank 0's store could tell.
        others = {place.rank: mine for place in self._places if place.rank > 0}
        standings = self._gathered(mine) if self._ranks.main else others
        found = {
            "by": self._ranks.rank,
            "text": verdict(self._places, standings, quiet_s),
            "silent": [place.rank for place in silent(self._places, standings)],
            "step": mine.step,
        }
        first = self._settle(found)
        if first is None:
            self._wake(found)  # perhaps rank 0: then its store answers now
            if self._talk:
                self._talk.recover(ANSWER_S)
            first = self._settle(found)
        if first == found or (first is None and (self._ranks.rank == 1 or self._ranks.local_rank == 0)):
            self._speak(found)
            self._wake(found)
            time.sleep(WAKE_S)
        if first in (found, None):
            self._leave()

    def _settle(self, found: Found) -> Found | None:
        """What was first found, by whichever rank; None if that cannot be known."""
        return self._talk.settle(found, ANSWER_S) if self._talk else found

    def _gathered(self, mine: Standing) -> dict[int, Standing | None]:
        """Where each rank stands; None for one that was stopped in the meantime."""
        standings: dict[int, Standing | None] = {self._ranks.rank: None if self._slept() else mine}
        if self._talk is None:
            return {self._ranks.rank: mine}
        deadline = time.monotonic() + self._every_s + ANSWER_S
        others = set(range(1, self._ranks.world_size))
        while others and time.monotonic() < deadline:
            for rank, said in self._talk.answers(sorted(others), ANSWER_S).items():
                standings[rank] = None if said.pop("slept") else Standing(**said)
                others.discard(rank)
            time.sleep(0.1)
        return standings

    def _await_verdict(self, quiet_s: float) -> None:
        """Another rank finds and tells; this one helps, and leaves without a word."""
        deadline = time.monotonic() + self._every_s + 4 * ANSWER_S
        while self._talk and time.monotonic() < deadline:
            found = self._talk.verdict(ANSWER_S)
            if found:
                self._wake(found)
                break
            time.sleep(0.1)
        self._leave()

    def _wake(self, found: Found) -> None:
        """Have the silent ranks of this host write their stacks, if this is the first of those that are not."""
        here = [place for place in self._places if place.host == self._places[self._ranks.rank].host]
        awake = [place.rank for place in here if place.rank not in found["silent"]]
        if self._woke_others or awake[:1] != [self._ranks.rank]:
            return
        self._woke_others = True
        for place in here:
            if place.rank in found["silent"]:
                self._stacks.wake(place, f"{place} gave no sign of life; woken to write this")

    def _speak(self, found: Found) -> None:
        text = f"{found['text']}. Stacks of all ranks: {self._stacks.path.parent}/stacks_rank_*.txt"
        LastWord("Hang", found["text"], may_pass=True).leave()
        with suppress(OSError):  # nobody listens any more
            print(f"error: {text}; the same command resumes from the last checkpoint", file=sys.stderr, flush=True)
        _mute()
        Bounded(lambda: log.error("%s", text)).wait(ANSWER_S)
        Bounded(lambda: self.tell(found["text"], found["step"])).wait(ANSWER_S)

    def _leave(self) -> NoReturn:
        """Rank 0 first: the collectives that break when a rank leaves would be all that it has to tell of."""
        _mute()
        deadline = time.monotonic() + WAKE_S + ANSWER_S
        while self._talk and not self._ranks.main and time.monotonic() < deadline and self._talk.verdict(ANSWER_S):
            time.sleep(0.1)
        Bounded(logging.shutdown).wait(ANSWER_S)
        os._exit(HANG_EXIT)


def _mute() -> None:
    """All is said: torch prints a page about a store that is gone, and the loop a line about a lost rank."""
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)


@contextmanager
def watched(ranks: Ranks, log_folder: Path, config: HealthConfig) -> Iterator[Watch]:
    """Watch over this rank, in whose pulse the loop beats, until the context ends. Every rank must come: the group
    must stand."""
    stacks = Stacks(log_folder, ranks.rank)
    me = psutil.Process()
    places = to_all(Place(ranks.rank, os.uname().nodename, me.pid, me.create_time()))
    talk = Talk.connect() if config.hang_timeout_s and ranks.world_size > 1 else None
    watch = Watch(ranks, places, stacks, Pulse(), config, talk)
    if config.hang_timeout_s:
        watch.start()
    try:
        yield watch
    finally:
        watch.close()
        stacks.close()
