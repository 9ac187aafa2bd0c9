"""Several trainings in one process, each with another W&B server: ``tracked_training.py SHARDS OUT [NAME=URL …]``.

NAME is the run directory; an empty URL means no W&B. Prints for each its name and how many seconds it took.
"""

import os
import sys
import time
from pathlib import Path

from launching import TINY, flags
from wandb_server import KEY

from aar_dist.training.pretrain import main

shards, out = sys.argv[1], Path(sys.argv[2])
for argument in sys.argv[3:]:
    name, _, url = argument.partition("=")
    os.environ |= {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": url}
    mode = {
        "tracking.mode": "online" if url else "disabled",
        "tracking.init_timeout_s": 1.0,
        "tracking.finish_timeout_s": 2.0,
    }
    before = time.monotonic()
    main(flags(TINY | mode | {"out": out / name, "data.shards": shards, "train.pictures": 2}))
    print(name, time.monotonic() - before, flush=True)
