"""A run as its tracker sees it: ``tracked_script.py RUN FIRST LAST PAUSE_S HOLD_S`` writes steps, and validations of
every fifth; then it hangs for a while."""

import json
import sys
import time
from pathlib import Path

from aar_dist.training import tracking
from aar_dist.training.tracking.sending import settings

root, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
pause_s, hold_s = float(sys.argv[4]), float(sys.argv[5])
sets = [{"url": "s3://id:hunter2@bucket/herd", "identity": "0123456789abcdef", "shards": {"a.tar": "00"}}]
attempt = tracking.begin(root, world_size=1, from_step=first - 1, val_every=5, total_steps=40, shards=sets)
config, _ = settings(tracking.Record(root))
kept = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()] if first else []
(root / "metrics.new").write_text("".join(json.dumps(row) + "\n" for row in kept if row["step"] < first))
(root / "metrics.new").rename(root / "metrics.jsonl")  # as metrics.trim does
with (
    tracking.start(config, root, attempt, warn=lambda text: print(text, flush=True)),
    open(root / "metrics.jsonl", "a") as file,
):
    for step in range(first, last + 1):
        for row in [{"step": step, "loss": step / 2}] + [{"step": step, "val/loss": float(step)}] * (step % 5 == 0):
            file.write(json.dumps(row) + "\n")
            file.flush()
        time.sleep(pause_s)
    time.sleep(hold_s)
    if last == 40:
        (root / "finished").write_text(json.dumps({"model": "store://aar@1", "path": str(root / "store"), "step": 40}))
