"""One rank of a group that is asked to stop: ``python stopper_script.py RANK WORLD PORT``. Says where it stopped."""

import os
import signal
import sys
import time

import torch.distributed as dist

from aar_dist.base.errors import run_door
from aar_dist.training.ranks import Ranks
from aar_dist.training.stopping import stopper
from aar_dist.training.stopping.stopper import Stopper

rank, world, port = (int(text) for text in sys.argv[1:])
os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
stopper.LOOK_EVERY_S = 0.1
MICRO_BATCHES = 20


def main() -> None:
    """Steps of 20 micro-batches; rank 1 is slower, and is asked to stop in the middle of its third."""
    dist.init_process_group("gloo")
    with Stopper(Ranks.from_environment()) as stop:
        for step in range(5):
            for micro in range(MICRO_BATCHES):
                time.sleep(0.02 if rank else 0.01)
                if rank and (step, micro) == (2, 4):
                    os.kill(os.getpid(), signal.SIGTERM)
                last = micro == MICRO_BATCHES - 1
                if stop.after_step() if last else stop.within():
                    print(step, micro, stop.reason, flush=True)
                    dist.barrier()
                    dist.destroy_process_group()
                    return


run_door(main)
