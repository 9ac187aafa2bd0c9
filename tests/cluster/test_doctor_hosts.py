"""`aar-dist doctor --hostfile` on two hosts that differ, and what a launch on them refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import PORT, Hosts, two_hosts
from launching import DEEPSPEED, ROOT, TINY, environment, flags

pytestmark = [pytest.mark.launch, pytest.mark.slow]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    shared = tmp_path_factory.getbasetemp().parent
    with two_hosts(tmp_path_factory.mktemp("doctor"), shared, ROOT) as hosts:
        yield hosts


def examine(hosts: Hosts, *options: str | Path) -> tuple[int, dict[tuple[str, str], dict]]:
    """Exit code, and (host, check) -> finding."""
    command = [sys.executable, "-c", "from aar_dist.cli import door; door()", "doctor", "--json"]
    env = environment(DS_ENV_FILE=str(hosts.env_file), PYTHONPATH=str(ROOT))
    process = hosts.start([*command, "--hostfile", hosts.hostfile, *options], cwd=ROOT, env=env)
    said = process.communicate(timeout=180)[0]
    return process.returncode, {(row["host"], row["check"]): row for row in json.loads(said)["findings"]}


def test_two_hosts_that_are_alike_are_fit(hosts, shard_set, tmp_path):
    code, found = examine(hosts, "--shards", shard_set, "--run", tmp_path / "run")
    first, second = (host.address for host in hosts)
    assert code == 0, found
    for host in (first, second):
        for check in ("ssh", "versions", "code", "compiler", "shards", "disk", "bandwidth"):
            assert found[host, check]["state"] in ("ok", "warning"), found[host, check]
    assert "is reached" in found[second, "rank 0"]["found"]
    assert found[second, "alike"]["state"] == found[second, "shared"]["state"] == "ok"
    assert (first, "port") in found
    assert (second, "port") not in found


def test_a_host_that_is_down_and_a_port_in_use_are_problems(hosts):
    first, second = (host.address for host in hosts)
    server = f"import socket; s = socket.create_server(('', {PORT})); print('listens', flush=True); input()"
    taken = hosts[0].start([sys.executable, "-c", server], stdin=subprocess.PIPE)
    assert taken.stdout.readline() == "listens\n"
    hosts[1].cut()
    try:
        code, found = examine(hosts)
    finally:
        hosts[1].mend()
        taken.communicate("\n")
    assert code == 1
    assert found[second, "ssh"]["state"] == "problem"
    assert found[first, "port"]["found"] == f"{PORT} is in use"


def test_a_run_directory_that_each_host_has_for_itself_is_a_problem(hosts):
    code, found = examine(hosts, "--run", "/dev/shm/run")
    assert code == 1
    assert found[hosts[1].address, "shared"]["found"] == f"/dev/shm/run is not that of {hosts[0].address}"


def test_a_wrong_key_on_the_other_host_ends_all_with_its_line_where_it_was_typed(hosts, shard_set, tmp_path):
    """Without ssh: each host's own command, and the second one's has another seed and a misspelt key."""
    hosts_file = tmp_path / "hosts"
    hosts_file.write_text("".join(f"{host.address} slots=1\n" for host in hosts))
    launcher = [DEEPSPEED, "--hostfile", hosts_file, "--no_ssh", "--master_addr", hosts[0].address]
    command = ["launch/pretrain.py", "--out", tmp_path / "run", "--data.shards", shard_set, *flags(TINY)]

    def typed(*more: str) -> list[list[str]]:
        env = environment(PYTHONPATH=str(ROOT), AAR_DIST_MEETING_S="120")
        rest = ["--master_port", PORT, "--log_level", "error"]
        launches = [
            host.start([*launcher, *rest, "--node_rank", k, *command, *(more if k else ())], cwd=ROOT, env=env)
            for k, host in enumerate(hosts)
        ]
        said = [launch.communicate(timeout=240)[0] for launch in launches]
        assert [launch.returncode for launch in launches] == [2, 2], said
        return [[line for line in text.splitlines() if line.startswith("error")] for text in said]

    key = "optim.warmup_steps must be 1 or more, got 0"
    assert typed("--optim.warmup_steps=0") == [[f"error: rank 1 on host2: {key}"], [f"error: rank 1: {key}"]]
    for (said,) in typed("--train.seed=7"):
        assert said.startswith("error: rank 1 on host2 has another configuration than rank 0 on host1: train.seed 7 ")
    assert not (tmp_path / "run").exists()
