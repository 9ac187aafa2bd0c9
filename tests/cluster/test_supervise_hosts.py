"""A host that is gone for good: the run goes on with the ranks that are left, over the same segments."""

import sys
import time

import pytest
from hosts import two_hosts
from launching import ROOT, TINY, environment, flags, losses

from aar_dist.training.supervision import attempts

pytestmark = [pytest.mark.launch, pytest.mark.slow]


def test_the_run_goes_on_without_a_host(tmp_path, shard_set):
    out, record = tmp_path / "run", tmp_path / "segments"
    record.mkdir()
    settings = TINY | {"train.max_steps": 60, "train.val_every": 60}
    shared = shard_set.parents[1]
    with two_hosts(tmp_path, tmp_path, shared, ROOT) as hosts:
        door = [sys.executable, "launch/supervise.py", "--hostfile", hosts.hostfile, "--probe_s", "2", "--wait_s", "3"]
        script = [ROOT / "tests" / "cluster" / "recorded" / "pretrain.py", "--out", out, "--data.shards", shard_set]
        env = environment(DS_ENV_FILE=str(hosts.env_file), AAR_DIST_RECORD=str(record), AAR_DIST_PACE="0.1")
        supervisor = hosts.start([*door, *script, *flags(settings)], cwd=ROOT, env=env)
        deadline = time.monotonic() + 240
        while len(losses(out)) < 10:
            assert supervisor.poll() is None, supervisor.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        hosts[0].kill()  # the first, where rank 0 was
        said = supervisor.communicate(timeout=400)[0]
    assert supervisor.returncode == 0, said
    made = attempts.read(out)
    assert [(attempt.ranks, attempt.hosts) for attempt in made] == [
        (2, [hosts[0].address, hosts[1].address]),
        (1, [hosts[1].address]),
    ]
    assert f"{hosts[0].address} no longer answers" in made[0].how
    assert [step for step, *_ in losses(out)] == list(range(1, 61))
    places = {int(line.split()[0]) for file in record.iterdir() for line in file.read_text().splitlines()}
    assert places == {*range(0, 60 * 32, 32)}, "every global batch, and no other"
