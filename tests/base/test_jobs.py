"""Jobs give the same results in this process and on Ray, and user errors come through."""

import os
import signal
from types import SimpleNamespace

import pytest

from aar_dist.base.errors import ShardError, StorageError
from aar_dist.base.jobs import Workers, run_jobs
from aar_dist.base.rounds import gpus_of_each


@pytest.mark.launch
def test_ray_keeps_the_order_and_hands_on_errors():
    def square(x: int) -> int:  # defined here, Ray carries its code along
        if x == 99:
            raise ShardError("99 is bad")
        return x * x

    seen = []
    assert run_jobs(square, list(range(6)), Workers(count=2), on_done=seen.append) == [x * x for x in range(6)]
    assert sorted(seen) == [x * x for x in range(6)]
    with pytest.raises(ShardError, match="99 is bad"):
        run_jobs(square, [1, 99], Workers(count=2))


def test_one_worker_runs_here():
    assert run_jobs(lambda x: x + 1, [1, 2], Workers(count=1)) == [2, 3]
    assert run_jobs(lambda x: x + 1, [], Workers(count=4)) == []


@pytest.mark.launch
def test_a_process_that_dies_is_told_and_the_others_go_on():
    def kill_itself(x: int) -> str:
        if x == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{x} by {os.getpid() != parent}"

    parent, ticks = os.getpid(), []
    apart = Workers(count=1, always_apart=True)
    made = run_jobs(
        kill_itself, [0, 1, 2], apart, on_crash=lambda item, why: f"{item}: {why}", on_tick=lambda: ticks.append(1)
    )
    assert made == ["0 by True", "1: its process died 4 times", "2 by True"]
    assert ticks


def test_a_job_that_fits_no_machine_is_told_instead_of_waiting_for_ever():
    def machines(*resources: dict[str, float]) -> SimpleNamespace:
        return SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": of} for of in resources])

    plain, mixed = {"CPU": 2.0}, ({"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0})
    assert gpus_of_each(machines(plain), Workers(count=1, gpus=1)) == 0, "no machine of this cluster has any"
    assert gpus_of_each(machines(*mixed), Workers(count=1, cores=2, gpus=2)) == 2
    with pytest.raises(StorageError, match="has the 3 cores and 0 GPUs that one job needs"):
        gpus_of_each(machines(plain, plain), Workers(count=1, cores=3))
    with pytest.raises(StorageError, match="has the 4 cores and 4 GPUs"):
        gpus_of_each(machines(*mixed), Workers(count=1, cores=4, gpus=4))
