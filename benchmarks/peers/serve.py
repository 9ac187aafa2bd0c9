"""One peer in a process of its own, which reads when it is told to.

python serve.py litdata '{"root": …, "f32": {"flat": …}, …}'      # prints the names of its readers
stdin: NAME SECONDS      stdout: {"segments": …, "cpu_s": …, "wall_s": …}
"""

import importlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s() -> float:
    """Processor time of this process and the workers it has started [s]."""
    used = time.process_time()
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        used += (int(fields[11]) + int(fields[12])) / TICKS
    return used


def read(batches: Iterator[Any], seconds: float) -> dict[str, float]:
    """Read whole batches for about so long, at least one."""
    began, used, n = time.perf_counter(), cpu_s(), 0
    while not n or time.perf_counter() - began < seconds:
        n += len(next(batches))
    return {"segments": n, "cpu_s": cpu_s() - used, "wall_s": time.perf_counter() - began}


def main() -> None:
    """Serve one peer until stdin ends."""
    torch.set_num_threads(1)
    if "CORE" in os.environ:
        os.sched_setaffinity(0, {int(os.environ["CORE"])})
    answers = os.fdopen(os.dup(1), "w")  # what libraries print must not come between
    os.dup2(2, 1)
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    readers: dict[str, Iterator[Any]] = importlib.import_module(name).readers(settings)
    print(json.dumps(list(readers)), file=answers, flush=True)
    for line in sys.stdin:
        reader, seconds = line.rsplit(" ", 1)
        print(json.dumps(read(readers[reader], float(seconds))), file=answers, flush=True)
    os._exit(0)  # libraries that wait for their threads would wait for ever


if __name__ == "__main__":
    main()
