"""What the rounds of jobs lean on, on a real Ray of two nodes: what it says of a job's end, and where it may not go."""

import os
import signal
import time
from pathlib import Path

import pytest
from ray_nodes import ray_cluster

from aar_dist.base.jobs import Place, Workers, run_jobs

pytestmark = [pytest.mark.launch, pytest.mark.slow]
ADDRESSES = ("127.0.8.2", "127.0.8.3")


def test_what_ends_badly_on_one_machine_is_done_by_the_other(tmp_path):
    """Also while the other one is busy and the first one is not: a machine that is broken would take every try."""

    def work(item: str) -> str:
        here = Path(tmp_path, f"{item}-{time.time_ns()}")
        here.touch()
        n = len(list(tmp_path.glob(f"{item}-*")))
        if item == "fails" and n == 1:
            return "failed"
        if item == "dies" and n == 1:
            time.sleep(2)  # where it is must have been told
            os.kill(os.getpid(), signal.SIGKILL)
        if item.startswith("long"):
            time.sleep(8)
        return f"{item} done"

    begun: list[tuple[str, str]] = []
    again: list[tuple[str, str]] = []
    calls = {
        "failure": lambda result: "it says so" if result == "failed" else None,
        "retries": 1,
        "on_start": lambda item, place: begun.append((item, place.address)),
        "on_again": lambda item, place, why: again.append((item, why)),
    }
    with ray_cluster(*ADDRESSES) as nodes:
        for item in ("fails", "dies"):
            begun.clear()
            made = run_jobs(work, [f"long{item}", item], Workers(count=1, address=nodes[0].head), **calls)
            assert made == [f"long{item} done", f"{item} done"]
            places = [address for name, address in begun if name == item]
            assert set(places) == {*ADDRESSES}
    assert again == [("fails", "it says so"), ("dies", "its process died (WorkerCrashedError)")]


def test_a_machine_that_goes_is_told_from_a_process_that_dies():
    def work(item: str) -> str:
        time.sleep({"first": 25, "second": 5}[item])
        return item

    again: list[tuple[str, str]] = []
    with ray_cluster(*ADDRESSES) as nodes:

        def pull_the_plug(item: str, place: Place) -> None:
            if place.address == ADDRESSES[1] and not again:
                nodes[1].kill()

        calls = {"on_start": pull_the_plug, "on_again": lambda item, place, why: again.append((item, why))}
        # Of two jobs of one core each, one is on the node that is not asked for them.
        made = run_jobs(work, ["first", "second"], Workers(count=1, address=nodes[0].head), **calls)
    assert made == ["first", "second"]
    assert [why for _, why in again] == ["its machine is gone (NodeDiedError)"]
