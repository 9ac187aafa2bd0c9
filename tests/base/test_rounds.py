"""What becomes of jobs whose machine or process is gone, on a Ray that plays each end as it is told to."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from types import SimpleNamespace

import psutil
import pytest

from aar_dist.base import rounds
from aar_dist.base.attempts import MACHINES, Attempts, Place
from aar_dist.base.errors import StorageError
from aar_dist.base.rounds import Calls, Round, Workers

ERRORS = ("NodeDiedError", "LocalRayletDiedError", "ObjectLostError", "TaskUnschedulableError", "WorkerCrashedError")


class Reference:
    """A task; what it says next is its place, then its end."""

    def __init__(self, item: str, selector: dict[str, str]) -> None:
        self.item, self.selector = item, selector
        self.place: Place | None = None
        self.said = 0

    def __next__(self) -> "Reference":
        self.said += 1
        return self


class PlayedRay:
    """One job at a time on each machine; ``ends`` says of each item how its tries end: done unless told."""

    def __init__(self, machines: list[str], **ends: list[str]) -> None:
        names = (*ERRORS, "RayTaskError", "OutOfMemoryError")
        self.exceptions = SimpleNamespace(**{name: type(name, (Exception,), {}) for name in names})
        self.machines, self.ends = machines, {item: deque(of) for item, of in ends.items()}
        self.cancelled: list[str] = []
        self.begun: list[tuple[str, str]] = []
        self.most = 0

    def nodes(self) -> list[dict]:
        return [{"NodeID": name, "Alive": True, "Resources": {"CPU": 1.0}} for name in self.machines]

    def remote(self, **options) -> object:
        assert options["max_retries"] == 0, "Ray itself tries nothing again"

        def options_of(label_selector: dict[str, str]) -> SimpleNamespace:
            return SimpleNamespace(remote=lambda item: Reference(item, label_selector))

        return lambda work: SimpleNamespace(options=options_of)

    def wait(self, references: list[Reference], **ignored) -> tuple[list[Reference], None]:
        self.most = max(self.most, len(references))
        for one in references:
            if one.place:
                return [one], None
            away = one.selector.get(rounds.NODE_ID, "!in()").removeprefix("!in(").removesuffix(")").split(",")
            free = [name for name in self.machines if name not in away]
            if free:
                one.place = Place(node=free[0], host=free[0], address="", process=1)
                self.begun.append((one.item, free[0]))
                return [one], None
        self.machines.append("late")
        return [], None

    def get(self, one: Reference) -> object:
        if one.said == 1:
            return one.place
        end = self.ends[one.item].popleft() if self.ends.get(one.item) else "done"
        if end == "NodeDiedError":
            self.machines.remove(one.place.node)
        if end in ERRORS:
            raise getattr(self.exceptions, end)
        return f"{one.item} {end}"

    def cancel(self, one: Reference) -> None:
        self.cancelled.append(one.item)


def played(ray: PlayedRay, items: list[str], **calls) -> list[str]:
    calls = {"failure": lambda result: "it says so" if result.endswith("failed") else None} | calls
    return Round(ray, lambda item: item, items, Workers(count=1), Calls(**calls)).run()


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    monkeypatch.setattr(rounds, "REST_S", 0.0)
    monkeypatch.setattr(rounds, "TICK_S", 0.0)


def test_a_job_whose_machine_dies_is_done_by_another():
    ray = PlayedRay(["one", "two"], a=["NodeDiedError"])
    told: list[tuple] = []
    made = played(ray, ["a", "b", "c"], on_again=lambda item, place, why: told.append((item, place.node, why)))
    assert made == ["a done", "b done", "c done"]
    assert told == [("a", "one", "its machine is gone (NodeDiedError)")]
    assert ray.begun[0] == ("a", "one")
    assert ("a", "two") in ray.begun


def test_a_failure_is_tried_on_another_machine():
    ray = PlayedRay(["one", "two"], a=["failed", "WorkerCrashedError"])
    assert played(ray, ["a"], retries=1) == ["a done"]
    assert ray.begun == [("a", "one"), ("a", "two"), ("a", "one")], "on any where it has failed on all"


@pytest.mark.parametrize(("retries", "result"), [(0, "a failed"), (1, "a failed"), (2, "a done")])
def test_a_failure_is_tried_as_often_as_is_asked(retries, result):
    ray = PlayedRay(["one"], a=["failed", "failed"])
    assert played(ray, ["a"], retries=retries) == [result]


def test_a_process_that_always_dies_is_given_up():
    ray = PlayedRay(["one", "two"], a=["WorkerCrashedError"] * 9)
    made = played(ray, ["a", "b"], on_crash=lambda item, why: f"{item}: {why}")
    assert made == ["a: its process died 4 times", "b done"]
    with pytest.raises(StorageError, match="given up: its process died 4 times"):
        played(PlayedRay(["one"], a=["WorkerCrashedError"] * 9), ["a"])


def test_what_another_job_has_made_possible_is_next():
    ray = PlayedRay(["one"])
    made = played(ray, ["a", "b"], then=lambda result: ["c"] if result == "a done" else [])
    assert made == ["a done", "b done", "c done"]


def test_a_job_that_waits_for_machines_that_have_gone_is_taken_back():
    """Ray would wait for ever for one that is not among those where it failed."""
    ray = PlayedRay(["one", "two"], a=["failed"])
    kept = ray.wait

    def wait(references: list[Reference], **more) -> tuple[list[Reference], None]:
        if any(one.selector for one in references if not one.place):
            ray.machines[:] = ["one"]
            return [], None
        return kept(references, **more)

    ray.wait = wait
    assert played(ray, ["a"], retries=1) == ["a done"]
    assert ray.begun == [("a", "one"), ("a", "one")]
    assert ray.cancelled == ["a"]


def test_a_cluster_without_a_machine_is_told_and_waited_for():
    ray, said = PlayedRay(["one"], a=["NodeDiedError"]), []
    assert played(ray, ["a"], on_say=said.append) == ["a done"]
    assert said == ["no machine has room for a job: waiting for one"]
    assert ray.begun == [("a", "one"), ("a", "late")]


def test_ray_is_handed_little_more_than_it_has_room_for():
    ray = PlayedRay(["one", "two"])
    assert len(played(ray, [f"job{k}" for k in range(400)])) == 400
    assert ray.most <= 1.25 * 2 + rounds.AHEAD + 1


def test_a_machine_that_others_cannot_find_is_told_instead_of_waiting_for_ever():
    def node(host: str, address: str) -> dict:
        return {"Alive": True, "NodeManagerHostname": host, "NodeManagerAddress": address}

    rounds.check_addresses([node("one", "127.0.0.2"), node("one", "127.0.0.3")])
    rounds.check_addresses([node("one", "10.0.0.1"), node("two", "10.0.0.2")])
    with pytest.raises(StorageError, match=r"Ray on one says that its address is 127\.0\.1\.1, .*--node-ip-address"):
        rounds.check_addresses([node("two", "10.0.0.2"), node("one", "127.0.1.1")])


def test_machines_that_go_one_after_the_other_end_it():
    attempts = Attempts()
    assert [attempts.lost() for _ in range(MACHINES)] == [True] * (MACHINES - 1) + [False]
    assert attempts.told == f"{MACHINES} machines have gone under it"
    assert attempts.elsewhere({"a"}) == set(), "no fault of any machine that is left"


CHILD = """
import os, sys, time
from aar_dist.base.rounds import end_with_parent
end_with_parent()
end_with_parent()
print(os.getpid(), flush=True)
time.sleep(600)
"""


def test_a_process_ends_with_the_one_that_started_it():
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"],
        stdout=subprocess.PIPE,
        text=True,
    )
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
