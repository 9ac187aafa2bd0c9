"""Jobs give the same results in this process and on Ray, and user errors come through."""

import pytest

from aar_dist.base.errors import ShardError
from aar_dist.base.jobs import run_jobs


@pytest.mark.launch
def test_ray_keeps_the_order_and_hands_on_errors():
    def square(x: int) -> int:  # defined here, Ray carries its code along
        if x == 99:
            raise ShardError("99 is bad")
        return x * x

    seen = []
    assert run_jobs(square, list(range(6)), workers=2, on_done=seen.append) == [x * x for x in range(6)]
    assert sorted(seen) == [x * x for x in range(6)]
    with pytest.raises(ShardError, match="99 is bad"):
        run_jobs(square, [1, 99], workers=2)


def test_one_worker_runs_here():
    assert run_jobs(lambda x: x + 1, [1, 2], workers=1) == [2, 3]
