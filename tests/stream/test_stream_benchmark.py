"""The benchmark of the stream runs whole, with tiny sizes; nothing is asserted of its times."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = {"cut_f32", "cut_i16", "gather_f32", "loop_f32", "loop_i16", "batch_f32", "threads_2", "cold"}
PEERS = {"litdata_window", "webdataset_precut"}


def test_it_measures_every_key_without_the_peers(tmp_path):
    made, drawn = tmp_path / "made.json", tmp_path / "made.png"
    command = [sys.executable, str(ROOT / "benchmarks" / "stream.py"), "--small", "--no_peers", "--rounds", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--json", str(made), "--picture", str(drawn)],
        capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(made.read_text())
    assert {key for key in CORE | PEERS if found[key] is None} == PEERS
    assert all(found[key] > 0 for key in CORE)
    assert all(rate > 0 for rate in found["rates"].values())
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert f"| `cut_f32` | {found['cut_f32']:.2f} | 2.0 |" in done.stdout
    assert "without peers" in done.stderr
