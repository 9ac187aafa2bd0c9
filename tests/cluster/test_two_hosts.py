"""Training on two hosts: each has its own network, processes, /tmp and /dev/shm, and an sshd."""

import subprocess
from pathlib import Path

import pytest
from hosts import PORT, Hosts, two_hosts
from launching import DEEPSPEED, ROOT, TINY, environment, finish, flags, losses, run

SHORT = TINY | {"train.max_steps": 8, "train.val_every": 4, "optim.warmup_steps": 5}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    shared = tmp_path_factory.getbasetemp().parent
    with two_hosts(tmp_path_factory.mktemp("two"), shared, ROOT) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def alone(shard_set, tmp_path_factory) -> list[tuple[int, float, float]]:
    """The losses of two ranks of one host."""
    out = tmp_path_factory.mktemp("alone")
    code, said = run(out, shard_set, SHORT)
    assert code == 0, said
    return losses(out)


def by_pdsh(hosts: Hosts, out: Path, shards: Path, settings: dict) -> subprocess.Popen:
    launcher = [DEEPSPEED, "--hostfile", hosts.hostfile, "--master_port", PORT]
    command = [*launcher, "launch/pretrain.py", "--out", out, "--data.shards", shards, *flags(settings)]
    return hosts.start(command, cwd=ROOT, env=environment(DS_ENV_FILE=str(hosts.env_file)))


@pytest.mark.launch
def test_two_hosts_by_pdsh_lose_what_one_host_loses(hosts, alone, shard_set, tmp_path):
    code, said = finish(by_pdsh(hosts, tmp_path / "run", shard_set, SHORT))
    assert code == 0, said
    assert (tmp_path / "run" / "finished").exists(), said
    assert losses(tmp_path / "run") == alone
    assert "host1" in (tmp_path / "run" / "log" / "rank_0.log").read_text()
    assert "host2" in (tmp_path / "run" / "log" / "rank_1.log").read_text()
