"""All ranks meet before anything else is done.

    @user_entry
    @meets                          store -> alarm -> roll call: code, versions, machines compared by rank 0
    def main(argv): ...             configuration, shards; an error of any rank ends all
        attend()                    … .agree(...): configuration, shard set, run directory compared
            process_group(ranks)    over the same store

Three rounds through the store, each in one go for all ranks: 30 ms for two, a second for 200 that share two cores.
"""

import functools
import json
import logging
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import ParamSpec, TypeVar

from torch.distributed import HashStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from aar_dist.base.errors import AarError, ConfigError, PassingError
from aar_dist.training.meeting import agreement
from aar_dist.training.meeting.alarm import Alarm, alarm
from aar_dist.training.meeting.compare import complaints, one_complaint, remarks
from aar_dist.training.meeting.facts import Facts, facts_of
from aar_dist.training.meeting.launcher import Launcher, check_hostfile, find_launcher
from aar_dist.training.meeting.rollcall import Absent, gather, named, take_seat
from aar_dist.training.meeting.store import PATIENCE, open_store, patience_s, wait_for
from aar_dist.training.ranks import Ranks

P = ParamSpec("P")
R = TypeVar("R")

OPENED, CONFIG, TOKEN, AGREED, PARTED = (
    f"aar_dist/meeting/{name}" for name in ("opened", "config", "token", "agreed", "parted")
)
PART_S = 10.0
GONE_S = 60.0
"""A rank that came and of which nothing is heard for so long has died, or stands still."""

log = logging.getLogger(__name__)


class Meeting:
    """Of this process with the other ranks of its launch; also of a process that is alone."""

    def __init__(self, ranks: Ranks, store: TCPStore | None, watch: Alarm | None, launcher: Launcher) -> None:
        self.ranks, self._store, self._alarm, self._launcher = ranks, store, watch, launcher
        self._facts: list[Facts] = []
        """Of all ranks, on rank 0."""
        self._clock_s = 0.0
        self._shared = 0

    def group_store(self) -> Store:
        """For the process group."""
        return HashStore() if self._store is None else PrefixStore("aar_dist/group", self._store.clone())  # type: ignore[attr-defined]

    def look(self) -> None:
        """End here if another rank has said why it failed."""
        if self._alarm is not None:
            self._alarm.look()

    def main_is_gone(self) -> bool:
        """True if rank 0 has died, and the store with it."""
        try:
            return self._store is not None and not self._store.check([OPENED])
        except RuntimeError:
            return True

    def roll_call(self, facts: Facts) -> None:
        """Wait for all ranks and compare what they are. Rank 0 raises ``PassingError`` (who did not come) or
        ``ConfigError`` (what differs), and the alarm ends the rest."""
        if self._store is None:
            return
        patience = patience_s(self.ranks)
        try:
            found = gather(self._store, self.ranks, "facts", facts.to_json(), patience, self._expected)
        except Absent as absent:
            raise PassingError(
                f"{self._expected(absent.ranks)} did not come within {patience:g} s; see what their hosts print, "
                f"whether they reach the address of rank 0 (aar-dist doctor --hostfile FILE), or set {PATIENCE}"
            ) from None
        if found is not None:
            check_hostfile(self._launcher, self.ranks.world_size)
            self._facts = [Facts.from_json(each) for each in found]
            self._refuse(complaints(self._facts))
            self._warn(*remarks(self._facts))
            self._store.set(OPENED, json.dumps({"time": time.time()}))
        self._clock_s = time.time() - json.loads(wait_for(self._store, OPENED))["time"]

    def part(self) -> None:
        """Rank 0, which holds the store, leaves last: the others may be reading its last word."""
        deadline = time.monotonic() + PART_S
        with suppress(RuntimeError):  # it has left without: all is done
            self._there.add(PARTED, 1)
            while self.ranks.main and self._there.add(PARTED, 0) < self.ranks.world_size:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.02)

    def of_main(self, make: Callable[[], R]) -> R:
        """What ``make`` returns on rank 0 (JSON), on every rank; before there is a process group."""
        if self._store is None:
            return make()
        self._shared += 1
        key = f"aar_dist/meeting/main/{self._shared}"
        if self.ranks.main:
            self._store.set(key, json.dumps(make()))
        said: R = json.loads(wait_for(self._store, key))
        return said

    def agree(self, config: str, shards: Sequence[str], places: Sequence[str], out: Path) -> None:
        """Compare what the ranks are about to do: the resolved configuration, the identities of the shard sets and
        where they are, the run directory. Raises ``ConfigError`` on rank 0; the alarm ends the rest."""
        if self._store is None:
            return
        terms = agreement.Terms(
            who=f"rank {self.ranks.rank} on {platform.node()}",
            config=agreement.config_hash(config),
            shards=tuple(shards),
            places=tuple(places),
            out=str(out),
            clock_s=self._clock_s,
        )
        self._store.set(f"{CONFIG}/{terms.config}", config)
        found = [agreement.Terms.from_json(each) for each in self._all_say("terms", terms.to_json()) or ()]
        if found:
            self._refuse(agreement.disagreements(found, lambda digest: wait_for(self._there, f"{CONFIG}/{digest}")))
            self._warn(*agreement.clock_warnings(found))
            with agreement.token(out) as name:  # now that nobody fails any more: it would be left behind
                self._store.set(TOKEN, name)
                seen = self._all_say("seen", "yes") or ()
                self._refuse(agreement.strangers(found, [each == b"yes" for each in seen]))
            self._store.set(AGREED, "1")
        else:
            self._all_say("seen", "yes" if agreement.sees(out, wait_for(self._store, TOKEN)) else "no")
            wait_for(self._store, AGREED)

    def _all_say(self, name: str, said: str) -> list[bytes] | None:
        """One round, in which a rank may take its time as long as it lives."""
        try:
            return gather(self._there, self.ranks, name, said, GONE_S, self._arrived, pulses=True)
        except Absent as absent:
            raise PassingError(
                f"{self._arrived(absent.ranks)}: not heard of for {GONE_S:g} s, so it has died or stands still; see "
                "what its host prints"
            ) from None

    @property
    def _there(self) -> TCPStore:
        assert self._store is not None, "there are others"
        return self._store

    def _expected(self, ranks: Sequence[int]) -> str:
        return f"{named(ranks, self._launcher.host_of)} of {self.ranks.world_size}"

    def _arrived(self, ranks: Sequence[int]) -> str:
        return named(ranks, lambda rank: f" on {self._facts[rank].host} (process {self._facts[rank].pid})")

    def _refuse(self, found: Iterator[str]) -> None:
        said = one_complaint(found)
        if said:
            raise ConfigError(said)

    def _warn(self, *texts: str) -> None:
        for text in texts:
            log.warning(text)
            print(f"WARNING: {text}", file=sys.stderr, flush=True)


_here: list[Meeting] = []


@contextmanager
def attend() -> Iterator[Meeting]:
    """The meeting that this process is in; a new one if it is in none."""
    if _here:
        yield _here[-1]
    else:
        with meeting() as met:
            yield met


@contextmanager
def meeting() -> Iterator[Meeting]:
    """Meet the other ranks, and watch over each other until the end of the context. Raises ``ConfigError``, or
    ``PassingError`` where the same launch may succeed later."""
    ranks = Ranks.from_environment()
    launcher = find_launcher()
    with _kept_for_the_log():
        if ranks.world_size == 1:
            check_hostfile(launcher, ranks.world_size)
            yield from _as_here(Meeting(ranks, None, None, launcher))
            return
        facts = facts_of(ranks)
        store = _seat(ranks, facts)
        with alarm(ranks, store.clone()) as watched:  # type: ignore[attr-defined]
            met = Meeting(ranks, store, watched, launcher)
            met.roll_call(facts)
            yield from _as_here(met)
            met.part()


def meets(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate the ``main`` of a launch, below ``user_entry``."""

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with meeting():
            return main(*args, **kwargs)

    return run


def _as_here(met: Meeting) -> Iterator[Meeting]:
    _here.append(met)
    try:
        yield met
    finally:
        _here.remove(met)


def _seat(ranks: Ranks, facts: Facts) -> TCPStore:
    """The store, with this process in it. What is refused here is nobody else's error, and told at once."""
    try:
        store = open_store(ranks)
        take_seat(store, facts, patience_s(ranks))
    except AarError as error:
        error.alone = ranks.local_rank == 0
        raise
    return store


@contextmanager
def _kept_for_the_log() -> Iterator[None]:
    """Log messages from before there is a run directory go into its log when it is opened."""
    keeper = MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1)
    logging.getLogger("aar_dist").setLevel(logging.INFO)
    logging.root.addHandler(keeper)
    try:
        yield
    finally:
        with suppress(ValueError):
            logging.root.removeHandler(keeper)
