"""Many independent jobs: on this process, on this machine's cores, or on a Ray cluster.

    items -> job(item) -> results in the order of the items, whatever the number of workers

The only module that imports Ray. A job must be safe to run twice: it is tried again when its process or its machine is
gone (:mod:`aar_dist.base.attempts`).
"""

import logging
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aar_dist.base import rounds
from aar_dist.base.attempts import Attempts, Place
from aar_dist.base.errors import StorageError
from aar_dist.base.interrupts import sigterm_kept
from aar_dist.base.rounds import Calls, Round, Workers

__all__ = ["Calls", "Place", "Session", "Workers", "available_cores", "run_jobs"]

T = TypeVar("T")
R = TypeVar("R")

CONNECT_TIMEOUT_S = 5.0


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def run_jobs(job: Callable[[T], R], items: Sequence[T], workers: Workers, **calls: Any) -> list[R]:
    """Run ``job`` on every item, in a session of its own, and return the results in order: see ``Session.run``."""
    with Session(workers) as session:
        return session.run(job, items, **calls)


class Session:
    """Workers for several rounds of jobs: Ray starts once, at the first round that needs it, and ends with the block.

    with Session(Workers(count=4)) as session:
        checked = session.run(check, files)
        written = session.run(write, plan_of(checked))
    """

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self._ray: Any = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *failure: object) -> None:
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None

    def run(self, job: Callable[[T], R], items: Sequence[T], **calls: Any) -> list[R]:
        """Run ``job`` on every item and return the results in order; those of :attr:`Calls.then` come after.

        One worker without a cluster runs in this process; otherwise Ray schedules. An ``AarError`` in a job ends the
        run.

        Args:
            job: A function of one item.
            items: What there is to do, in the order in which it is begun.
            calls: The fields of :class:`Calls`.
        """
        told: Calls[T, R] = Calls(**calls)
        if not items:
            return []
        alone = self.workers.count <= 1 or len(items) == 1
        if self.workers.address is None and alone and not self.workers.always_apart:
            return _run_here(job, items, told)
        if self._ray is None:
            self._ray = _start_ray(self.workers)
        return Round(self._ray, job, items, self.workers, told).run()


def _run_here(job: Callable[[T], R], items: Sequence[T], calls: Calls[T, R]) -> list[R]:
    results, left, here = [], deque(items), Place(node="", host="", address="", process=os.getpid())
    while left:
        item, attempts = left.popleft(), Attempts(retries=calls.retries)
        calls.on_start(item, here)
        while (why := calls.failure(result := job(item))) and attempts.failed(None):
            calls.on_again(item, here, why)
            time.sleep(rounds.REST_S)
        results.append(result)
        left.extendleft(reversed(calls.then(result)))
        calls.on_done(result)
    return results


def _check_reachable(address: str) -> None:
    """Ray itself waits minutes for a cluster that is not there."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return  # "auto" and the like: Ray looks for a cluster on this machine
    try:
        socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise StorageError(
            f"no Ray cluster at {address} ({error.strerror or error}); start one with `ray start`"
        ) from None


def _start_ray(workers: Workers) -> Any:
    address = workers.address
    if address is not None:
        _check_reachable(address)
    # Ray reads these at import: no usage report, no token between processes of one machine, and for a local
    # instance ports on the loopback only (the flag's name speaks of other systems, its effect is here too).
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    if address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    common = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        with sigterm_kept():  # Ray would print a stack of its own
            if address is None:
                room = {"num_cpus": workers.count * workers.cores, "num_gpus": math.ceil(workers.count * workers.gpus)}
                ray.init(address="local", include_dashboard=False, **room, **common)
            else:
                ray.init(address=address, **common)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StorageError(
            f"no Ray cluster at {address or 'this machine'}: {error}. Start one with `ray start`"
        ) from error
    # A machine that dies would be a page of Ray's own in the middle of a table; its debugger turns that off like this.
    ray._private.worker._worker_logs_enabled = False
    return ray
