"""The benchmark for a GPU: at toy size on the CPU from end to end, and what it does when parts fail."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import gpu
import pytest

ROOT = Path(__file__).parents[2]
ON_CPU = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu"}
SCRIPT = str(ROOT / "benchmarks" / "gpu.py")


@pytest.mark.launch
def test_it_runs_whole_at_toy_size_and_says_so(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Speed\n<!-- gpu: begin -->\nNo GPU figure exists yet.\n<!-- gpu: end -->\nEnd.\n")
    command = [sys.executable, SCRIPT, "--small", "--sizes", "aar_1b", "--json", str(tmp_path / "made.json")]
    done = subprocess.run([*command, "--page", str(page)], capture_output=True, text=True, timeout=240, env=ON_CPU)
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "made.json").read_text())
    assert made == json.loads(done.stdout)
    assert made["failed"] == []
    assert made["note"] == "no GPU here: toys on a CPU, nothing to quote"
    told = {(row["side"], row["data"], row["feed"]): row for row in made["results"]}
    assert len(told) == 8
    for (side, _, _), row in told.items():
        assert row["segments_per_s"] > 0
        assert 0 < row["mfu"] < 1
        assert 0 <= row["loader_share"] < 1
        assert (side == "ours") == ("of_plain" in row)
    text = page.read_text()
    assert "No GPU figure" not in text
    assert text.count("| aar_1b |") == 4
    assert made["date"] in text
    assert text.endswith("<!-- gpu: end -->\nEnd.\n")


def test_without_a_gpu_it_asks_for_the_toys(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match=r"^error: no GPU here; --small runs the same code with toys$"):
        gpu.main()


def test_a_part_that_takes_too_long_is_ended():
    assert gpu.started({"side": "plain"}, 0.0) == ([], -1, "out of time")  # it had a second, and imports take longer


def test_what_fails_is_told_and_the_others_go_on(monkeypatch):
    tried = []

    def started(settings, limit_s):
        tried.append((settings["size"], settings["side"], settings["batch"]))
        if settings["size"] == "aar_1b" and settings["batch"] > 16:
            return [], gpu.OUT_OF_MEMORY, ""
        if settings["side"] == "plain":
            return [{"side": "plain", "data": "mixed"}], 1, "RuntimeError: broken"
        assert 0 < limit_s < 100
        return [{"side": "ours"}], 0, ""

    monkeypatch.setattr(gpu, "started", started)
    rows = gpu.measure(gpu.FULL, ["aar", "aar_1b"], {}, time.monotonic() + 100)
    assert tried == [
        ("aar", "ours", 2048), ("aar", "plain", 2048), ("aar_1b", "ours", 64), ("aar_1b", "ours", 32),
        ("aar_1b", "ours", 16), ("aar_1b", "plain", 64), ("aar_1b", "plain", 32), ("aar_1b", "plain", 16),
    ]  # fmt: skip
    broken = {"side": "plain", "failed": "RuntimeError: broken"}
    assert rows == [
        {"side": "ours"}, {"side": "plain", "data": "mixed"}, broken | {"size": "aar", "batch": 2048},
        {"side": "ours"}, {"side": "plain", "data": "mixed"}, broken | {"size": "aar_1b", "batch": 16},
    ]  # fmt: skip
    monkeypatch.setattr(gpu, "started", lambda *_: ([], gpu.OUT_OF_MEMORY, ""))
    (row,) = gpu.measure(gpu.FULL, ["aar"], {}, time.monotonic() + 100)[:1]
    assert row == {"size": "aar", "side": "ours", "failed": "out of memory with a single segment"}


def test_operations_and_ratios_of_the_plain_side():
    ours = {"side": "ours", "size": "aar", "data": "mixed", "feed": "host", "segments_per_s": 200.0, "mfu": 0.4}
    ours |= {"matmul_tflops": 100.0, "batch": 8, "loader_share": 0.01}
    plain = {"side": "plain", "size": "aar", "data": "mixed", "feed": "host", "segments_per_s": 50.0}
    first, second = gpu.rated([ours, plain])
    assert first == ours | {"of_plain": 4.0}
    assert second == plain | {"mfu": 0.1, "matmul_tflops": 100.0}
    assert gpu.rated([plain]) == [plain]
    about = {"device": "NVIDIA H200", "date": "2030-01-01", "torch": "2.13", "took_s": 400.0}
    text = gpu.page(about | {"results": [first, second, ours | {"size": "b"}], "failed": [{"size": "c"}]})
    assert "NVIDIA H200, 2030-01-01" in text
    assert "| aar | mixed | 8 | host | 200 | 40.0% | 1.0% | 50 | 10.0% | 4.00 |" in text
    assert "| b | mixed | 8 | host | 200 | 40.0% | 1.0% | – | – | – |" in text
    assert "Failed: {'size': 'c'}" in text
