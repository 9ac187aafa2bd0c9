"""One rank of a group: ``python alarm_script.py RANK WORLD PORT WHAT``."""

import os
import sys
import time

import torch.distributed as dist

from aar_dist.base.errors import ConfigError, run_door, user_entry
from aar_dist.training.meeting.meeting import meeting
from aar_dist.training.ranks import barrier, from_main

rank, world, port = (int(text) for text in sys.argv[1:4])
what = sys.argv[4]
os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
os.environ["LOCAL_RANK"] = str(rank)


def refuse() -> None:
    raise ConfigError("this key is wrong")


def fail() -> None:
    """What is asked for."""
    if what == f"rank {rank} fails":
        refuse()
    if what == f"rank {rank} has a full disk":
        raise OSError(28, "No space left on device", "/some/file")
    if what == f"rank {rank} has a bug":
        raise ZeroDivisionError("division by zero")
    if what == "all fail":
        from_main(refuse)
    if what == f"rank {rank} computes while rank 0 fails":
        time.sleep(60)
    if what.endswith("while rank 0 fails") and rank == 0:
        refuse()


@user_entry
def main() -> None:
    with meeting() as met:
        if what == f"before the group rank {rank} fails":
            refuse()
        dist.init_process_group("gloo", store=met.group_store(), rank=rank, world_size=world)
        barrier()
        fail()
        barrier()
        dist.destroy_process_group()


run_door(main)
