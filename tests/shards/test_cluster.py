"""A build on a Ray cluster that is already there: two nodes, of which workers and then one whole node are lost."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from test_build import assert_refused, hashes

from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.shards.verify import verify_shards

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
QUIET = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
# A lost node is noticed within seconds, not after a minute.
QUIET |= {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000"}
QUIET |= {"RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "3"}
SHARD_BYTES = 8_000_000
PATIENCE_S = 120
STOPPED: set[int] = set()
"""Workers that this test has frozen: each leads a process group of its own and may outlive its node."""


def raylet(address: str, *flags: str) -> subprocess.Popen[bytes]:
    """One node with room for one job, on an address of its own, in a process group of its own."""
    start = [RAY, "start", "--block", f"--node-ip-address={address}", "--num-cpus=1", *flags]
    return subprocess.Popen(
        start, env=QUIET, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[tuple[str, *tuple[subprocess.Popen[bytes], ...]]]:
    """Address of a two-node cluster, and its nodes. `ray stop` would end others' too: groups are killed."""
    with socket.socket() as s:
        s.bind(("127.0.0.2", 0))
        address = f"127.0.0.2:{s.getsockname()[1]}"
    port, folder = address.rpartition(":")[2], tmp_path_factory.mktemp("r")
    nodes = [raylet("127.0.0.2", "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")]
    try:
        wait_for(lambda: answers(address), "a Ray head")
        nodes.append(raylet("127.0.0.3", f"--address={address}"))
        yield address, *nodes
    finally:
        for node in reversed(nodes):
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        for pid in STOPPED:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> Path:
    """Enough for shards that take a while to write."""
    root, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for subject in range(8):
        acc = SensorData(
            values=rng.normal(size=(800_000, 3)).astype("<f4"), rate_hz=100.0, units="g", axes=("x", "y", "z")
        )
        dataset_to_hdf5(root / "noise", dataset="noise", species="cow", subject=str(subject), sensors={"acc": acc})
    return root


@pytest.fixture(scope="module")
def alone(noise, tmp_path_factory) -> dict[str, str]:
    """The hashes of a build by one worker on one node."""
    options = BuildOptions(datasets=("noise",), shard_bytes=SHARD_BYTES)
    return hashes(build(noise, tmp_path_factory.mktemp("alone") / "set", options, workers=1).folder)


def answers(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def wait_for(what, told: str, tick_s: float = 0.2):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(tick_s)
    raise AssertionError(f"no {told} after {PATIENCE_S} s")


def frozen_writer(folder: Path, node: subprocess.Popen[bytes]) -> tuple[int, Path] | None:
    """A worker of this node that was stopped in the middle of a shard, and what it has written of it."""
    for staging in folder.glob("*.tar.staging-*"):
        pid = int(staging.name.rsplit("-", 3)[1])
        try:
            if node.pid not in (parent.pid for parent in psutil.Process(pid).parents()):
                continue
            os.kill(pid, signal.SIGSTOP)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
        STOPPED.add(pid)
        if staging.exists():
            return pid, staging
        os.kill(pid, signal.SIGCONT)
    return None


@contextlib.contextmanager
def built_on(address: str, noise: Path, out: Path) -> Iterator[None]:
    """A build by the cluster, which has ended well at the end of the block."""
    command = [sys.executable, ROOT / "shards/build.py", "--data_root", noise, "--output_folder", out]
    command += ["--shard_size", str(SHARD_BYTES), "--ray_address", address]
    with subprocess.Popen(
        list(map(str, command)), env=QUIET, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as build:
        try:
            yield
            _, errors = build.communicate(timeout=PATIENCE_S)
        finally:
            build.kill()
    assert build.returncode == 0, errors.decode()


@pytest.mark.launch
def test_two_nodes_lose_a_worker_and_then_a_node_and_write_the_same_bytes(cluster, noise, alone, tmp_path):
    (address, first, second), out = cluster, tmp_path / "set"
    with built_on(address, noise, out):
        waiting, _ = wait_for(lambda: frozen_writer(out, first), "worker on the first node", 0.001)
        killed, half = wait_for(lambda: frozen_writer(out, second), "worker on the second node", 0.001)
        os.kill(killed, signal.SIGKILL)
        assert half.exists()
        half.unlink()
        stray, _ = wait_for(lambda: frozen_writer(out, second), "other worker on the second node", 0.001)
        (node,) = (p for p in psutil.Process(second.pid).children(recursive=True) if p.name() == "raylet")
        node.kill()
        # It has outlived its node, and may still end its attempt beside the next one.
        os.kill(stray, signal.SIGCONT)
        os.kill(waiting, signal.SIGCONT)
    assert hashes(out) == alone
    assert "all hashes match" in verify_shards(out)


def test_no_cluster_there(recordings, tmp_path, capsys):
    arguments = ["--data_root", recordings, "--datasets", "fast"]
    arguments += ["--output_folder", tmp_path / "set", "--ray_address", "127.0.0.1:9"]
    assert_refused(capsys, arguments, "error: no Ray cluster at 127.0.0.1:9")
    assert not (tmp_path / "set").exists()
