"""How busy each machine is: one small sum over all ranks whenever a line is logged.

every rank's own device, local rank 0's machine  ->  (nodes, quantities)  ->  system/<host>/<quantity>
"""

import math
import socket
from collections import Counter

import psutil
import torch

from aar_dist.training.ranks import Ranks, sum_ranks, to_all

QUANTITIES = ("cpu", "memory", "gpu", "gpu_memory")
"""Each in percent: of the machine's cores and memory; of its ranks' GPUs, their mean."""


class Nodes:
    """The machines of a run. Every rank makes one, and every rank calls :meth:`take`."""

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        self._leads = ranks.local_rank == 0
        self._device = device
        leaders = to_all((socket.gethostname(), self._leads))
        node = -1  # ranks of a machine follow one another, its local rank 0 first
        names = []
        for rank, (name, leads) in enumerate(leaders):
            node += leads
            names += [name] * leads
            if rank == ranks.rank:
                self._node = max(node, 0)
        self.names = _told_apart(names or [leaders[0][0]])
        if self._leads:
            psutil.cpu_percent()  # the first answer is about nothing

    def take(self) -> dict[str, float]:
        """``system/<host>/cpu`` and so on, since the last call; what a machine does not tell is left out."""
        sums = torch.zeros(len(self.names), 2 * len(QUANTITIES), dtype=torch.float64)
        for k, value in enumerate(self._own()):
            if math.isfinite(value):
                sums[self._node, 2 * k], sums[self._node, 2 * k + 1] = value, 1.0
        told = sum_ranks(sums).tolist()
        return {
            f"system/{name}/{what}": round(row[2 * k] / row[2 * k + 1], 2)
            for name, row in zip(self.names, told, strict=True)
            for k, what in enumerate(QUANTITIES)
            if row[2 * k + 1]
        }

    def _own(self) -> tuple[float, ...]:
        """This rank's part, NaN for what another one tells."""
        machine = (psutil.cpu_percent(), psutil.virtual_memory().percent) if self._leads else (math.nan, math.nan)
        return (*machine, *_gpu(self._device))


def _gpu(device: torch.device) -> tuple[float, float]:
    if device.type != "cuda":
        return math.nan, math.nan
    free, total = torch.cuda.mem_get_info(device)
    try:
        busy = float(torch.cuda.utilization(device))
    except (
        Exception
    ):  # needs nvidia-ml-py, whose errors are of no other kind, and a GPU that tells: a MIG part does not
        busy = math.nan
    return busy, 100 * (total - free) / total


def _told_apart(names: list[str]) -> list[str]:
    """Machines of one name get a number."""
    times, seen = Counter(names), Counter[str]()
    told = []
    for name in names:
        seen[name] += 1
        told.append(f"{name}-{seen[name]}" if times[name] > 1 else name)
    return told
