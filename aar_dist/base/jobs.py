"""Many independent jobs: on this process, on this machine's cores, or on a Ray cluster.

    items -> job(item) -> results in the order of the items, whatever the number of workers

The only module that imports Ray. A job must be safe to run twice: Ray retries it when a worker dies.
"""

import logging
import math
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aar_dist.base.errors import AarError, StorageError
from aar_dist.base.interrupts import sigterm_kept

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 3
CONNECT_TIMEOUT_S = 5.0
TICK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who does the jobs."""

    count: int
    """At most so many at a time on this machine."""
    address: str | None = None
    """Of a Ray cluster; then as many as it has room for."""
    cores: int = 1
    """Of each job."""
    gpus: float = 0
    """Of each job; several share one if it is less than 1. On a cluster without any, none."""
    always_apart: bool = False
    """A single job, or a single worker, has a process of its own too."""


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def run_jobs(
    job: Callable[[T], R],
    items: Sequence[T],
    workers: Workers,
    *,
    on_done: Callable[[R], None] = lambda result: None,
    on_crash: Callable[[T, str], R] | None = None,
    on_tick: Callable[[], None] = lambda: None,
) -> list[R]:
    """Run ``job`` on every item, in a session of its own, and return the results in order: see ``Session.run``."""
    with Session(workers) as session:
        return session.run(job, items, on_done=on_done, on_crash=on_crash, on_tick=on_tick)


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

    def run(
        self,
        job: Callable[[T], R],
        items: Sequence[T],
        *,
        on_done: Callable[[R], None] = lambda result: None,
        on_crash: Callable[[T, str], R] | None = None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> list[R]:
        """Run ``job`` on every item and return the results in order.

        One worker without a cluster runs in this process; otherwise Ray schedules. An ``AarError`` in a job ends the
        run.

        Args:
            job: A function of one item.
            items: What there is to do.
            on_done: Told of each result as it comes.
            on_crash: Makes the result of a job whose process died again and again; without it that ends the run.
            on_tick: Called about once a second while Ray works.
        """
        if not items:
            return []
        alone = self.workers.count <= 1 or len(items) == 1
        if self.workers.address is None and alone and not self.workers.always_apart:
            results = []
            for item in items:
                results.append(job(item))
                on_done(results[-1])
            return results
        if self._ray is None:
            self._ray = _start_ray(self.workers)
        return _run_on_ray(self._ray, job, items, self.workers, on_done, on_crash, on_tick)


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
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # unless told, it tries for ever
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
    return ray


def _run_on_ray(
    ray: Any,
    job: Callable[[T], R],
    items: Sequence[T],
    workers: Workers,
    on_done: Callable[[R], None],
    on_crash: Callable[[T, str], R] | None,
    on_tick: Callable[[], None],
) -> list[R]:
    remote = ray.remote(max_retries=RETRIES, num_cpus=workers.cores, num_gpus=gpus_of_each(ray, workers))(job)
    pending = {remote.remote(item): index for index, item in enumerate(items)}
    results: dict[int, R] = {}
    try:
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1, timeout=TICK_S)
            for reference in done:
                index = pending.pop(reference)
                results[index] = _result(ray, reference, items[index], on_crash)
                on_done(results[index])
            on_tick()
    finally:
        for reference in pending:
            ray.cancel(reference)
    return [results[index] for index in range(len(items))]


def gpus_of_each(ray: Any, workers: Workers) -> float:
    """GPUs of each job. Raises ``StorageError`` if no machine has room for one: Ray would wait for ever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = workers.gpus if any(of.get("GPU") for of in machines) else 0
    if not any(of.get("CPU", 0) >= workers.cores and of.get("GPU", 0) >= gpus for of in machines):
        raise StorageError(
            f"no machine of the Ray cluster has the {workers.cores} cores and {gpus:g} GPUs that one job needs; add "
            "one, or ask for fewer"
        )
    return gpus


def _result(ray: Any, reference: Any, item: T, on_crash: Callable[[T, str], R] | None) -> Any:
    """The value of a finished task; the user error it raised, without Ray's wrapping."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, AarError | OSError):
            raise cause from None
        raise
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        if on_crash is None:
            raise
        return on_crash(item, f"its process died {RETRIES + 1} times ({type(error).__name__})")
