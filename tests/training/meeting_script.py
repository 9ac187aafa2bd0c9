"""One rank that meets the others and agrees with them: ``python meeting_script.py RANK WORLD PORT JSON``.

JSON: what is told of this rank: {"code": …, "versions": …, "config": YAML, "shards": …, "out": folder, "ahead_s": …,
"wait": seconds between the rounds}; a rank that agreed prints "agreed".
"""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from aar_dist.base.errors import run_door, user_entry
from aar_dist.training.meeting import meeting as module
from aar_dist.training.meeting.meeting import meeting

rank, world, port = (int(text) for text in sys.argv[1:4])
told = json.loads(sys.argv[4])
os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_SIZE": str(world), "DS_ACCELERATOR": "cpu"}

facts_of, now = module.facts_of, time.time
module.facts_of = lambda ranks: replace(
    facts_of(ranks), **{key: told[key] for key in ("code", "problems") if key in told}
)
module.time.time = lambda: now() + told.get("ahead_s", 0.0)  # type: ignore[method-assign]


@user_entry
def main() -> None:
    began = time.monotonic()
    with meeting() as met:
        first = time.monotonic() - began
        began = time.monotonic()
        time.sleep(told.get("wait", 0.0))
        met.agree(told.get("config", "train: {seed: 1}"), [told.get("shards", "5e7a")], ["SHARDS"], Path(told["out"]))
        print(f"agreed {first:.3f} {time.monotonic() - began:.3f}", flush=True)


run_door(main)
