"""Ray clusters of several nodes on this machine, each of which can be killed, or left without its head.

with ray_cluster("127.0.5.2", "127.0.5.3") as nodes:
    folds.py --ray_address {nodes[0].head}
    nodes[1].kill()
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from aar_dist.training.ranks import free_port

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
MEMORY = 80_000_000


class Node:
    """One of Ray's nodes and all that it has started."""

    def __init__(self, address: str, head: str, folder: Path, *, cores: int, gpus: float) -> None:
        ip, port = head.split(":")
        first = address == ip
        words = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
        words = words if first else [f"--address={head}"]
        common = [f"--node-ip-address={address}", f"--num-cpus={cores}", f"--object-store-memory={MEMORY}", "--block"]
        self.ip, self.head = address, head
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("ray")), "start", *words, *common, f"--num-gpus={gpus:g}"],
            env=os.environ | SETTINGS | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def all(self) -> list[psutil.Process]:
        """Every process of the node, the one that started all of them first."""
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        return []

    @property
    def raylet(self) -> psutil.Process:
        """Ray's own process there."""
        return next(one for one in self.all if one.name() == "raylet")

    def kill(self) -> None:
        """As if the power failed."""
        for one in self.all:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()

    def behead(self) -> list[psutil.Process]:
        """Kill Ray's own processes; returns the workers, which nobody has killed."""
        raylet = self.raylet
        workers = raylet.children()
        for one in (psutil.Process(self.process.pid), raylet):
            one.kill()
        self.process.wait()
        return workers


@contextmanager
def ray_cluster(*addresses: str, cores: int = 1, gpus: float = 0) -> Iterator[list[Node]]:
    """Nodes at these addresses of the loopback device; who wants to use them connects to ``nodes[0].head``."""
    head = f"{addresses[0]}:{free_port()}"
    with ExitStack() as stack:
        # The names of its sockets are longer than pytest's folders leave room for.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)))
        nodes: list[Node] = []
        for address in addresses:
            nodes.append(Node(address, head, folder, cores=cores, gpus=gpus))
            stack.callback(nodes[-1].kill)
            _wait(head, len(nodes))
        yield nodes


def _wait(head: str, n: int) -> None:
    """Until so many nodes are there."""
    script = (
        "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level=40); "
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    deadline = time.monotonic() + 180
    while True:
        said = subprocess.run(
            [sys.executable, "-c", script, head], capture_output=True, text=True, env=os.environ | SETTINGS
        )
        if said.stdout.strip() == str(n):
            return
        assert time.monotonic() < deadline, said.stderr
        time.sleep(0.5)
