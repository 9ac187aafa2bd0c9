"""One rank of a group that is watched: ``python health_script.py RANK WORLD PORT FOLDER WHAT``."""

import logging
import os
import sys
import time
from pathlib import Path

import torch.distributed as dist

from aar_dist.base import last_word
from aar_dist.training.health.config import HealthConfig
from aar_dist.training.health.hang import watched
from aar_dist.training.ranks import Ranks, any_rank

rank, world, port = (int(text) for text in sys.argv[1:4])
folder, what = Path(sys.argv[4]), sys.argv[5]
os.environ |= {
    last_word.VARIABLE: str(folder / "last_word.json"),
    "RANK": str(rank),
    "WORLD_SIZE": str(world),
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": str(port),
}


def wait_for_data_that_never_comes() -> None:
    time.sleep(600)


logging.getLogger("aar_dist").addHandler(logging.NullHandler())
dist.init_process_group("gloo")
ranks = Ranks.from_environment()
with watched(ranks, folder, HealthConfig(hang_timeout_s=2.0)) as watch:
    watch.tell = lambda text, step: (folder / "told.txt").write_text(f"{step}: {text}")
    last = 1_000_000 if what == "is stopped" else 10
    for step in range(1, last):
        watch.pulse.beat("waiting for data", step)
        if what == f"rank {rank} gets no data" and step == 7:
            wait_for_data_that_never_comes()
        watch.pulse.beat("computing", step)
        any_rank(False)
        watch.pulse.warm()
        (folder / f"step_{rank}").write_text(str(step))
        time.sleep(0.01)
dist.barrier()
dist.destroy_process_group()
