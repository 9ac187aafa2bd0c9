"""Who has come: one round through the store, whatever the number of ranks.

every rank: sets its words, adds 1 to a counter    rank 0: waits for the counter, reads all words at once
"""

import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from aar_dist.base.errors import ConfigError, PassingError
from aar_dist.base.wording import some
from aar_dist.training.meeting.alarm import PULSE
from aar_dist.training.meeting.facts import Facts
from aar_dist.training.ranks import Ranks

WORLD = "aar_dist/meeting/world"
STRANGERS = "aar_dist/meeting/strangers"
LOOK_EVERY_S = 0.02
SPEAK_AFTER_S, SPEAK_EVERY_S = 10.0, 60.0


class Absent(Exception):
    """Not all ranks came in time."""

    def __init__(self, ranks: Sequence[int]) -> None:
        super().__init__(f"{len(ranks)} ranks did not come")
        self.ranks = ranks


def take_seat(store: TCPStore, facts: Facts, patience_s: float) -> None:
    """Be the one process that is this rank of this launch. Raises ``ConfigError`` in a process that belongs to
    another one, or that is a rank for the second time; the launch is not told. Raises ``PassingError`` where the store
    is none of ours: another program of torch had the port first."""
    if facts.rank == 0:
        store.set(WORLD, str(facts.world_size))
    world = int(_said_by_main(store, patience_s))
    if world != facts.world_size:
        store.append(STRANGERS, facts.to_json() + "\n")  # type: ignore[attr-defined]
        raise ConfigError(
            f"{facts.who} was started for {facts.world_size} ranks, but rank 0 at {os.environ.get('MASTER_ADDR')}:"
            f"{os.environ.get('MASTER_PORT')} for {world}; give every host the same hostfile, and each launch its own "
            "--master_port"
        )
    mark = secrets.token_hex(8)
    if store.compare_set(f"aar_dist/meeting/seat/{facts.rank}", "", mark).decode() != mark:
        raise ConfigError(
            f"{facts.who} is there twice: give each host its own --node_rank, and each launch its own --master_port"
        )


def _said_by_main(store: TCPStore, patience_s: float) -> bytes:
    """What rank 0 says before anything else."""
    deadline = time.monotonic() + patience_s
    while not store.check([WORLD]):
        if time.monotonic() > deadline:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise PassingError(
                f"what answers at {where} is not rank 0 of this launch; give the launcher another port: deepspeed "
                "--master_port N"
            )
        time.sleep(LOOK_EVERY_S)
    said: bytes = store.get(WORLD)
    return said


def gather(
    store: TCPStore,
    ranks: Ranks,
    name: str,
    said: str,
    patience_s: float,
    waiting: Callable[[Sequence[int]], str],
    *,
    pulses: bool = False,
) -> list[bytes] | None:
    """On rank 0 what every rank says; None on the others.

    Args:
        patience_s: How long rank 0 waits; with ``pulses``, for a sign of life of the alarm of a rank that is not ready.
        waiting: The ranks that rank 0 is waiting for, in words.

    Raises:
        Absent: on rank 0, which ranks did not come.
        ConfigError: on rank 0, a rank of another launch came.
    """
    keys = [f"aar_dist/meeting/{name}/{rank}" for rank in range(ranks.world_size)]
    counter = f"aar_dist/meeting/{name}/count"
    store.set(keys[ranks.rank], said)
    store.add(counter, 1)
    if not ranks.main:
        return None
    began, speaks, life = time.monotonic(), SPEAK_AFTER_S, Life(store)
    while store.add(counter, 0) < ranks.world_size:
        waited = time.monotonic() - began
        if waited > min(patience_s, speaks):
            absent = [rank for rank, key in enumerate(keys) if not store.check([key])]
            lost = life.lost(absent, patience_s) if pulses else absent if waited > patience_s else []
            if lost:
                raise Absent(lost)
            if absent and waited > speaks:
                speaks += SPEAK_EVERY_S
                print(f"waiting for {waiting(absent)}", file=sys.stderr, flush=True)
        _look_for_strangers(store)
        time.sleep(LOOK_EVERY_S)
    found: list[bytes] = store.multi_get(keys)
    return found


class Life:
    """Signs of life of the ranks, as rank 0 sees them."""

    def __init__(self, store: TCPStore) -> None:
        self._store = store
        self._seen: dict[int, tuple[int, float]] = {}
        """Rank -> its last pulse, and when that was new."""

    def lost(self, ranks: Sequence[int], patience_s: float) -> list[int]:
        """Those whose pulse has stood still for so long."""
        now = time.monotonic()
        for rank in ranks:
            pulse = self._store.add(f"{PULSE}/{rank}", 0)
            if self._seen.get(rank, (-1, now))[0] != pulse:
                self._seen[rank] = (pulse, now)
        return [rank for rank in ranks if now - self._seen[rank][1] > patience_s]


def _look_for_strangers(store: TCPStore) -> None:
    """Raise ``ConfigError`` on rank 0 if a rank came that was started for another number of ranks."""
    if store.check([STRANGERS]):
        stranger = Facts.from_json(store.get(STRANGERS).splitlines()[0])
        raise ConfigError(
            f"{stranger.who} was started for {stranger.world_size} ranks, rank 0 for {int(store.get(WORLD))}; give "
            "every host the same hostfile, and each launch its own --master_port"
        )


def named(ranks: Sequence[int], host_of: Callable[[int], str]) -> str:
    """``rank 1 (host n2), rank 3 (host n4)``."""
    return some([f"rank {rank}{host_of(rank)}" for rank in ranks])
