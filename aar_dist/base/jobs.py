"""Many independent jobs: on this process, on this machine's cores, or on a Ray cluster.

    items -> job(item) -> results in the order of the items, whatever the number of workers

The only module that imports Ray. A job must be safe to run twice: Ray retries it when a worker dies.
"""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aar_dist.base.errors import AarError, StorageError

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 3
CONNECT_TIMEOUT_S = 5.0


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def run_jobs(
    job: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int,
    address: str | None = None,
    on_done: Callable[[R], None] = lambda result: None,
) -> list[R]:
    """Run ``job`` on every item and return the results in order.

    One worker without a cluster runs in this process; otherwise Ray schedules, at most ``workers`` at a time on this
    machine, or as many as the cluster at ``address`` has cores for. An ``AarError`` in a job ends the run.
    """
    if address is None and (workers <= 1 or len(items) <= 1):
        results = []
        for item in items:
            results.append(job(item))
            on_done(results[-1])
        return results
    return _run_on_ray(job, items, workers, address, on_done)


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


def _start_ray(workers: int, address: str | None) -> Any:
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
        if address is None:
            ray.init(address="local", num_cpus=workers, include_dashboard=False, **common)
        else:
            ray.init(address=address, **common)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StorageError(
            f"no Ray cluster at {address or 'this machine'}: {error}. Start one with `ray start`"
        ) from error
    return ray


def _run_on_ray(
    job: Callable[[T], R], items: Sequence[T], workers: int, address: str | None, on_done: Callable[[R], None]
) -> list[R]:
    ray = _start_ray(workers, address)
    try:
        remote = ray.remote(max_retries=RETRIES)(job)
        pending = {remote.remote(item): index for index, item in enumerate(items)}
        results: dict[int, R] = {}
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1)
            result = _result(ray, done[0])
            results[pending.pop(done[0])] = result
            on_done(result)
        return [results[index] for index in range(len(items))]
    finally:
        ray.shutdown()


def _result(ray: Any, reference: Any) -> Any:
    """The value of a finished task; the user error it raised, without Ray's wrapping."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, AarError | OSError):
            raise cause from None
        raise
