"""A build on a Ray cluster that is already there."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_build import hashes

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
QUIET = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


@pytest.fixture
def cluster(tmp_path_factory):
    """The address of a one-node cluster of our own, ended with its process group (`ray stop` would end others too)."""
    with socket.socket() as s:
        s.bind(("127.0.0.2", 0))
        address = f"127.0.0.2:{s.getsockname()[1]}"
    start = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.2", f"--port={address.rpartition(':')[2]}"]
    start += ["--num-cpus=2", "--include-dashboard=false", f"--temp-dir={tmp_path_factory.mktemp('r')}"]
    head = subprocess.Popen(
        start, env=QUIET, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield address
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()


def wait_for(address: str) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            return socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no Ray head at {address} after a minute")


@pytest.mark.launch
def test_a_cluster_writes_the_same_bytes(cluster, recordings, shard_set, tmp_path):
    command = [sys.executable, ROOT / "shards/build.py", "--data_root", recordings, "--datasets", "fast", "slow"]
    command += ["--output_folder", tmp_path / "set", "--longest_segment_s", "1", "--shard_size", "700kB"]
    wait_for(cluster)
    subprocess.run([*command, "--ray_address", cluster], env=QUIET, check=True, capture_output=True, timeout=120)
    assert hashes(tmp_path / "set") == hashes(shard_set)


def test_no_cluster_there(recordings, tmp_path):
    command = [sys.executable, ROOT / "shards/build.py", "--data_root", recordings, "--datasets", "fast"]
    command += ["--output_folder", tmp_path / "set", "--ray_address", "127.0.0.1:9"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: no Ray cluster at 127.0.0.1:9")
    assert not (tmp_path / "set").exists()
