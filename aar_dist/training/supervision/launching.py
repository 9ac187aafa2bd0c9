"""What happens before an attempt, and what is looked at from outside while it runs.

hosts that answer, nothing left on them -> lock free -> launch;   lost hosts, a wish to stop -> Noticed
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aar_dist.base import storage
from aar_dist.base.carried import PRIVATE, write_private
from aar_dist.base.errors import ConfigError, PassingError
from aar_dist.base.wording import some
from aar_dist.training.ranks import free_port
from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.supervision.cluster import Cluster
from aar_dist.training.supervision.command import ENV_FILE, command, env_file, marks, of_hosts
from aar_dist.training.supervision.hosts import Host, hostfile, ranks_for, spread
from aar_dist.training.supervision.request import Request
from aar_dist.training.supervision.saying import say
from aar_dist.training.supervision.watch import Noticed, Watch

SAY_EVERY_S = 60.0
ASK_EVERY_S = 5.0
LEAVES_S = 120.0
"""A launch that was asked to stop is ended after this time: it may still have been starting."""


@dataclass(frozen=True)
class Patience:
    """When to wait, and when not to."""

    max_failures: int = 10
    """Attempts in a row without a newer checkpoint that are enough."""
    wait_s: float = 60.0
    """For hosts that are missing, before the run goes on with fewer ranks, or does not begin."""
    grace_s: float = 30.0
    """For ranks to save whose launcher is gone."""
    stall_s: float = 14_400.0
    """Longest time without a step: start, validation and publishing included. Ranks that can still tell have told of a
    hang long before (``health.*_timeout_s``)."""


class Launching:
    """Of one run.

    Args:
        script: The training script and its arguments.
        fits: True for a number of ranks among which the batch can be shared.
    """

    def __init__(
        self,
        script: Sequence[str],
        directory: RunDirectory,
        cluster: Cluster,
        patience: Patience,
        request: Request,
        fits: Callable[[int], bool],
    ) -> None:
        self._script, self._directory, self._cluster = script, directory, cluster
        self._patience, self._request, self._fits = patience, request, fits
        log = directory.root / "log"
        self.said = log / "last_word.json"
        self._hostfile, self._env_file = log / "hostfile", log / "deepspeed_env"
        self._private = log / PRIVATE
        self._asked = self._asked_again = 0.0
        self._began = False
        self.worked = False
        """True once an attempt has made a step."""

    def hosts(self) -> list[Host]:
        """The hosts of the next attempt, with as many slots as they get ranks; empty if a person wants to leave. Raises
        ``ConfigError`` where no attempt could be made of all hosts, ``PassingError`` if none can be made at the start;
        later it waits for as long as that is so."""
        if not self._ranks_on(self._cluster.hosts):
            raise ConfigError(
                f"{sum(host.slots for host in self._cluster.hosts)} slots: neither as many ranks nor fewer suit "
                "train.batch_size and deepspeed.world_size"
            )
        since, said = time.monotonic(), -SAY_EVERY_S
        while True:
            present = self._cluster.ready(self._patience.grace_s)
            ranks, missing, waited = self._ranks_on(present), self._missing(), time.monotonic() - since
            if self._request or not missing:
                break
            if waited >= self._patience.wait_s and ranks:
                say(f"going on without {missing}")
                break
            if waited >= self._patience.wait_s and not self._began:
                raise PassingError(
                    f"no attempt can be made without {missing}; aar-dist doctor --hostfile FILE tells more"
                )
            if time.monotonic() - said >= SAY_EVERY_S:
                said = time.monotonic()
                say(f"waiting for {missing}" + (f" ({self._patience.wait_s:.0f} s at most)" if ranks else ""))
            self._request.sleep(min(5.0, max(self._patience.wait_s, 0.2)))
        if ranks < (slots := sum(host.slots for host in present)):
            say(f"{slots} slots, but only {ranks} ranks suit train.batch_size and deepspeed.world_size")
        return spread(present, ranks)

    def _ranks_on(self, hosts: Sequence[Host]) -> int:
        return ranks_for(sum(host.slots for host in hosts), self._fits)

    def _missing(self) -> str:
        """The hosts that cannot be used, and why."""
        return some([f"{name} ({why})" for name, why in self._cluster.silent.items()])

    def wait_for_lock(self) -> None:
        """Until no process holds the run directory: a launch of somebody's own, since ours are ended."""
        said = -SAY_EVERY_S
        while not self._request and (holder := self._directory.held()):
            if time.monotonic() - said > SAY_EVERY_S:
                say(f"waiting: {self._directory.root} is in use by {holder}")
                said = time.monotonic()
            self._request.sleep(1.0)

    def launch(self, number: int, hosts: Sequence[Host]) -> Watch:
        """Start an attempt."""
        storage.remove(self.said)
        marked = marks(self._directory.root, self.said)
        remote = self._cluster.remote
        if remote:
            storage.write_text(self._hostfile, hostfile(hosts))
            write_private(self._env_file, env_file(os.environ, marked, self._private))  # the user's own may be private
            marked[ENV_FILE] = str(self._env_file)
        ranks = sum(host.slots for host in hosts)
        file = self._hostfile if remote else None
        words = command(self._script, hostfile=file, first=hosts[0].name, ranks=ranks, port=free_port())
        self._cluster.launched()
        self._began = True
        log = self.said.with_name(f"attempt_{number:04d}.log")
        watch = Watch(words, {**os.environ, **marked}, self._directory, self.said, log)
        say(f"attempt {number}: {ranks} rank(s) on {of_hosts(hosts)}, from step {watch.from_step}")
        return watch

    def close(self) -> None:
        """Leave no keys behind, once an attempt is over."""
        storage.remove(self._private)

    def look(self, hosts: Sequence[Host]) -> Noticed | None:
        """What ends an attempt from outside. A wish to stop is handed on to the ranks."""
        if self._request:
            return self._stop(hosts)
        lost = self._cluster.lost(hosts)
        return Noticed(f"{', '.join(lost)} no longer answers", hopeless=True) if lost else None

    def _stop(self, hosts: Sequence[Host]) -> Noticed | None:
        now = time.monotonic()
        if not self._asked:
            say(f"{self._request.why}: the run saves and leaves (once more ends it at once)")
            self._asked = now
        if len(self._request.numbers) > 1 or now - self._asked > LEAVES_S:
            return Noticed("ended without a farewell", hopeless=True)
        if now - self._asked_again > ASK_EVERY_S and not self.said.exists():  # again: ranks may have been starting
            self._asked_again = now
            self._cluster.ask(hosts)
        return None
