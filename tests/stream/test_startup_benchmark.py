"""The benchmark of start and memory runs whole; a hundred times the data leaves a process's own memory as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_memory_does_not_grow_with_the_shards(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "startup.py"),
        "--small",
        "--json",
        str(tmp_path / "made.json"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["x100"]["chunks"] == 100 * made["x1"]["chunks"]
    assert made["growth"]["bytes"] > 90
    assert made["growth"]["own_bytes"] < 1.5  # how many batches are under way at the end differs
    for size in ("x1", "x100"):
        for found in (made[size]["warm"], made[size]["cold"]):
            assert 0 < found["imports_s"] < found["first_batch_s"]
            # The pages that are mapped are those of the shards, and no more.
            assert 0.3 * made[size]["bytes"] < found["shards_bytes"] < made[size]["bytes"] + 4096 * made[size]["shards"]
