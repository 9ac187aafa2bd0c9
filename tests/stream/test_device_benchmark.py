"""The benchmark of the device path runs whole on a CPU and finds both paths equal."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ON_CPU = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}


def test_it_runs_on_a_cpu_and_says_so(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "device.py"), "--small", "--json", str(tmp_path / "made.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=ON_CPU)
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "made.json").read_text())
    assert made == json.loads(done.stdout)
    assert made["device"] == "cpu"
    assert made["note"].startswith("no GPU here")
    for name, itemsize in (("f32", 4), ("i16", 2)):
        found = made[name]
        assert found["equal"]
        assert found["resident_bytes"] > 20_000 * 3 * itemsize  # one subject trains, of two
        # A segment of 1000 samples of 3 axes, against its place in the resident samples.
        assert found["bytes_sent_per_segment"]["host"] > 3000 * itemsize
        assert found["bytes_sent_per_segment"]["resident"] < 200
        assert all(value > 0 for of in ("segments_per_s", "step_ms") for value in found[of].values())
    assert made["gather"]["equal"]
