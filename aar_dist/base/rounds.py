"""A round of jobs on Ray: handed out, told of, tried again elsewhere when they end badly.

    items -> waiting -> pending (handed to Ray) -> results
                 ^----------' its machine or its process is gone, or it failed: attempts.py says whether once more

Ray itself tries nothing again (``max_retries`` 0). Who does a job is the first thing that the job says.
"""

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aar_dist.base.attempts import Attempts, Place
from aar_dist.base.errors import AarError, StorageError

T = TypeVar("T")
R = TypeVar("R")

TICK_S = 1.0
REST_S = 1.0
"""A job that ended badly waits so long: what it met may pass. And Ray looks for room for what it holds back when it is
handed something, which must not be before it has heard that a dead process takes none any more."""
AHEAD = 2
"""Jobs more than there is room for, and a quarter more, are with Ray, that no worker waits. The others are ours to put
in order: what is tried again, or was made possible, comes next."""
NODE_ID = "ray.io/node-id"


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


def nothing(*ignored: Any) -> None:
    """Says nothing."""


@dataclass(frozen=True, kw_only=True)
class Calls(Generic[T, R]):
    """What the caller is told, and what it is asked, while its jobs are done."""

    on_done: Callable[[R], None] = nothing
    """Told of each result as it comes."""
    on_crash: Callable[[T, str], R] | None = None
    """Makes the result of a job that is given up, from the reason; without it that ends the run."""
    on_tick: Callable[[], None] = nothing
    """Called about once a second while Ray works."""
    on_start: Callable[[T, Place], None] = nothing
    """Told who has begun a job."""
    on_again: Callable[[T, Place | None, str], None] = nothing
    """Told that a job is tried again, where it ended badly, and why."""
    on_say: Callable[[str], None] = nothing
    """Told what concerns all jobs."""
    failure: Callable[[R], str | None] = lambda result: None
    """Why a result is a failure that another try may mend; None for all that is final."""
    retries: int = 0
    """Times that a failure is tried again."""
    then: Callable[[R], Sequence[T]] = lambda result: ()
    """Further jobs that a result has made possible. They are next."""


class Round(Generic[T, R]):
    """Jobs on Ray, each tried until it is done or given up."""

    def __init__(
        self, ray: Any, job: Callable[[T], R], items: Sequence[T], workers: Workers, calls: Calls[T, R]
    ) -> None:
        self._ray, self._calls, self._workers = ray, calls, workers
        self._items = list(items)
        self._attempts = [Attempts(retries=calls.retries) for _ in items]
        self._waiting = deque(range(len(self._items)))
        self._resting: dict[int, float] = {}
        """Job -> when it may be tried again."""
        self._pending: dict[Any, int] = {}
        """What was handed to Ray."""
        self._confined: dict[Any, set[str]] = {}
        """Of that, what may not go to some machines."""
        self._places: dict[Any, Place] = {}
        self._results: dict[int, R] = {}
        self._roomless = False
        self._remote = _remote(ray, job, workers, gpus_of_each(ray, workers))

    def run(self) -> list[R]:
        """The results, in order."""
        try:
            while self._waiting or self._resting or self._pending:
                self._submit()
                self._collect()
                self._calls.on_tick()
        finally:
            for reference in self._pending:
                self._ray.cancel(reference)
        return [self._results[index] for index in range(len(self._items))]

    def _submit(self) -> None:
        """Hand Ray as many jobs as it has room for, and some more."""
        now = time.monotonic()
        for index in [index for index, until in self._resting.items() if until <= now]:
            del self._resting[index]
            self._waiting.append(index)
        if not (self._waiting or self._confined):
            return
        check_addresses(self._ray.nodes())
        room = room_of(self._ray, self._workers)
        self._release(set(room))
        if self._roomless != (not room):
            self._roomless = not room
            self._calls.on_say("no machine has room for a job: waiting for one" if not room else "there is room again")
        while self._waiting and len(self._pending) < 1.25 * sum(room.values()) + AHEAD:
            index = self._waiting.popleft()
            away = self._attempts[index].elsewhere(set(room))
            remote = self._remote.options(label_selector={NODE_ID: f"!in({','.join(sorted(away))})"} if away else {})
            reference = remote.remote(self._items[index])
            self._pending[reference] = index
            if away:
                self._confined[reference] = away

    def _release(self, machines: set[str]) -> None:
        """Take back what waits for machines that have gone meanwhile: Ray would wait for ever."""
        for reference, away in list(self._confined.items()):
            if not machines - away and reference not in self._places:
                self._ray.cancel(reference)
                self._waiting.appendleft(self._forget(reference))

    def _collect(self) -> None:
        """Wait a moment for what happens next, and take note of it."""
        if not self._pending:
            time.sleep(TICK_S)
            return
        ready, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=TICK_S)
        for reference in ready:
            value, lost, crashed = _next(self._ray, reference)
            if lost or crashed:
                self._ended(reference, lost, crashed)
            elif isinstance(value, Place):
                self._places[reference] = value
                self._calls.on_start(self._items[self._pending[reference]], value)
            else:
                self._came(reference, value)

    def _ended(self, reference: Any, lost: str, crashed: str) -> None:
        """Its machine is gone, or its process."""
        place = self._places.get(reference)
        index = self._forget(reference)
        attempts, item = self._attempts[index], self._items[index]
        if attempts.lost() if lost else attempts.crashed(place):
            self._calls.on_again(item, place, lost or crashed)
            self._resting[index] = time.monotonic() + REST_S
        elif self._calls.on_crash is None:
            raise StorageError(f"a job was given up: {attempts.told}; {lost or crashed}")
        else:
            self._finish(index, self._calls.on_crash(item, attempts.told))

    def _came(self, reference: Any, result: R) -> None:
        place = self._places.get(reference)
        index = self._forget(reference)
        why = self._calls.failure(result)
        if why and self._attempts[index].failed(place):
            self._calls.on_again(self._items[index], place, why)
            self._resting[index] = time.monotonic() + REST_S
        else:
            self._finish(index, result)

    def _finish(self, index: int, result: R) -> None:
        self._results[index] = result
        for item in reversed(self._calls.then(result)):
            self._waiting.appendleft(len(self._items))
            self._items.append(item)
            self._attempts.append(Attempts(retries=self._calls.retries))
        self._calls.on_done(result)

    def _forget(self, reference: Any) -> int:
        self._places.pop(reference, None)
        self._confined.pop(reference, None)
        return self._pending.pop(reference)


def _remote(ray: Any, job: Callable[[T], R], workers: Workers, gpus: float) -> Any:
    """The job as Ray's: it says first who does it."""

    def work(item: T) -> Iterator[Any]:
        parent = end_with_parent()
        yield _here(ray)
        result = job(item)
        if os.getppid() != parent:  # a run that notices it as well stops, and that is no result
            os._exit(1)
        yield result

    return ray.remote(max_retries=0, num_cpus=workers.cores, num_gpus=gpus, num_returns="streaming")(work)


def _here(ray: Any) -> Place:
    return Place(
        node=ray.get_runtime_context().get_node_id(),
        host=socket.gethostname(),
        address=ray.util.get_node_ip_address(),
        process=os.getpid(),
    )


def end_with_parent() -> int:
    """From now on this process ends when the one that started it is gone; returns that one's id.

    Ray's own process on a machine is its workers' parent. When it is killed, or told that the cluster has given the
    machine up, a busy worker may go on, while another machine does its job.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(TICK_S)
        os._exit(1)

    if not any(thread.name == end_with_parent.__name__ for thread in threading.enumerate()):
        threading.Thread(target=watch, daemon=True, name=end_with_parent.__name__).start()
    return parent


def room_of(ray: Any, workers: Workers) -> dict[str, int]:
    """Machine -> jobs that it has room for, of those with any."""
    machines = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    gpus = workers.gpus if any(of.get("GPU") for of in machines.values()) else 0
    made = {}
    for name, of in machines.items():
        shares = [of.get("CPU", 0) / workers.cores, *([of.get("GPU", 0) / gpus] if gpus else [])]
        if n := int(min(shares) + 1e-6):
            made[name] = n
    return made


def check_addresses(nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise ``StorageError`` for a machine that others cannot find: jobs would wait for ever to say who does them.

    Where a machine knows its own name as the loopback (Debian's 127.0.1.1) and nothing leads outside, Ray takes that
    for its address.
    """
    alive = [node for node in nodes if node["Alive"]]
    if len({node.get("NodeManagerHostname") for node in alive}) < 2:
        return
    for node in alive:
        if str(node.get("NodeManagerAddress")).startswith("127."):
            raise StorageError(
                f"Ray on {node['NodeManagerHostname']} says that its address is {node['NodeManagerAddress']}, where "
                "other machines do not find it; start it there with `ray start --node-ip-address ADDRESS`"
            )


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


def _next(ray: Any, reference: Any) -> tuple[Any, str, str]:
    """(what a job says next, why its machine is gone, why its process is); the user error it raised, without Ray's
    wrapping."""
    of = ray.exceptions
    try:
        return ray.get(next(reference)), "", ""
    except of.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, AarError | OSError):
            raise cause from None
        raise
    except (of.NodeDiedError, of.LocalRayletDiedError, of.ObjectLostError, of.TaskUnschedulableError) as error:
        return None, f"its machine is gone ({type(error).__name__})", ""
    except (of.WorkerCrashedError, of.OutOfMemoryError) as error:
        return None, "", f"its process died ({type(error).__name__})"
