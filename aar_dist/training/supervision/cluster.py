"""The hosts that a run may use, and what it leaves on them.

answering, swept of leftovers -> (launch) -> lost? asked to stop? -> swept
"""

import time
from collections.abc import Sequence
from pathlib import Path

from aar_dist.base.ssh import there
from aar_dist.training.supervision import leftovers
from aar_dist.training.supervision.hosts import Host, silent

LEFTOVERS = "aar_dist.training.supervision.leftovers"
HERE = "this machine"
ANSWER_S = 10.0
"""A host that has not run a command by then does not answer."""
MISSES = 2
"""Looks in a row that a host must miss to be lost."""


class Cluster:
    """Hosts reached by ssh, or this machine alone.

    Args:
        hosts: Of the hostfile; empty: this machine.
        here: Ranks of this machine, without hosts.
        run: The run directory, by which processes of the run are known.
        probe_s: Seconds between two looks at the hosts of an attempt.
    """

    def __init__(self, hosts: Sequence[Host], here: int, run: Path, probe_s: float) -> None:
        self.hosts, self.remote = list(hosts) or [Host(HERE, here)], bool(hosts)
        self._run, self._probe_s = str(run), probe_s
        self._swept: set[Host] = set()
        self.silent: dict[str, str] = {}
        """Name of each host that cannot be used now -> why."""
        self._looked, self._missed = time.monotonic(), dict.fromkeys((host.name for host in self.hosts), 0)

    def ready(self, grace_s: float) -> list[Host]:
        """The hosts that answer, and on which nothing is left of the run; its ranks have this time to save."""
        self.silent = silent(self.hosts, ["true"], ANSWER_S) if self.remote else {}
        self.sweep([host for host in self.hosts if host not in self._swept and host.name not in self.silent], grace_s)
        return [host for host in self.hosts if host.name not in self.silent]

    def sweep(self, hosts: Sequence[Host], grace_s: float) -> None:
        """End what is left of the run on these hosts, as far as they answer."""
        if self.remote:
            failed = silent(hosts, there(LEFTOVERS, self._run, f"--grace={grace_s}"), grace_s + 2 * ANSWER_S)
            self.silent |= failed
            names = {host.name for host in hosts} - failed.keys()
            self._swept |= {host for host in self.hosts if host.name in names}
        elif hosts:
            leftovers.end(self._run, grace_s)
            self._swept = set(self.hosts)

    def ask(self, hosts: Sequence[Host]) -> None:
        """Ask all ranks to stop."""
        if self.remote:
            silent(hosts, there(LEFTOVERS, self._run, "--ask"), ANSWER_S)
        else:
            leftovers.ask(self._run)

    def launched(self) -> None:
        """An attempt begins."""
        self._swept = set()
        self._looked, self._missed = time.monotonic(), dict.fromkeys(self._missed, 0)

    def lost(self, hosts: Sequence[Host]) -> list[str]:
        """Names of the hosts of an attempt that no longer answer; looks only now and then."""
        if not self.remote or time.monotonic() - self._looked < self._probe_s:
            return []
        missing = silent(hosts, ["true"], ANSWER_S)
        self._looked = time.monotonic()
        for host in hosts:
            self._missed[host.name] = self._missed[host.name] + 1 if host.name in missing else 0
        return [host.name for host in hosts if self._missed[host.name] >= MISSES]
