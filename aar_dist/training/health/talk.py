"""Questions to the store over which the ranks met, each with an end.

The store lives in rank 0's process, and if that is stopped it answers nothing, for ever.
"""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from aar_dist.training.health.bounded import Bounded
from aar_dist.training.meeting.store import meeting_point

T = TypeVar("T")

ASKED, ANSWER, VERDICT = (f"aar_dist/health/{name}" for name in ("asked", "answer", "verdict"))


class Talk:
    """A connection of our own: the group's waits, with its lock held, for what other ranks have not said yet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: Bounded[Any] | None = None

    @classmethod
    def connect(cls) -> "Talk":
        """To the store of this launch."""
        address, port = meeting_point()
        return cls(TCPStore(address, port, is_master=False, timeout=timedelta(seconds=30), wait_for_workers=False))

    def asked(self, seconds: float) -> bool:
        """True if a rank has asked where all stand."""
        return bool(self._ask(lambda store: store.check([ASKED]), seconds))

    def answer(self, rank: int, standing: dict[str, Any], seconds: float) -> bool:
        """Ask where all stand, and say where this rank does. False if the store does not answer."""

        def say(store: Store) -> bool:
            store.set(f"{ANSWER}/{rank}", json.dumps(standing))
            store.set(ASKED, "1")
            return True

        return bool(self._ask(say, seconds))

    def answers(self, ranks: Sequence[int], seconds: float) -> dict[int, dict[str, Any]]:
        """Rank -> what it answered, of those that have."""

        def read(store: Store) -> dict[int, dict[str, Any]]:
            there = [rank for rank in ranks if store.check([f"{ANSWER}/{rank}"])]
            return {rank: json.loads(store.get(f"{ANSWER}/{rank}")) for rank in there}

        return self._ask(read, seconds) or {}

    def verdict(self, seconds: float) -> dict[str, Any] | None:
        """What was found, if it has been."""

        def read(store: Store) -> dict[str, Any] | None:
            return json.loads(store.get(VERDICT)) if store.check([VERDICT]) else None

        return self._ask(read, seconds)

    def settle(self, found: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """Publish what was found; returns what was first published, by whomever. None: the store does not answer."""

        def say(store: Store) -> dict[str, Any]:
            first: dict[str, Any] = json.loads(store.compare_set(VERDICT, "", json.dumps(found)))
            store.set(ASKED, "1")  # a rank that was stopped looks for this
            return first

        return self._ask(say, seconds)

    def recover(self, seconds: float) -> None:
        """Wait until the store has answered what it was asked before."""
        if self._last:
            self._last.wait(seconds)

    def _ask(self, question: Callable[[Store], T], seconds: float) -> T | None:
        """The answer, or None after so many seconds, or if the store is gone."""
        if self._last is not None and not self._last.done:
            return None  # the connection answers one question at a time, and has been waited for
        self._last = asked = Bounded(lambda: question(self._store))
        return asked.wait(seconds)
