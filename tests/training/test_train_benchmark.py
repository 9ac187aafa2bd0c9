"""The benchmark of training runs whole at a toy size; nothing is asserted of its times."""

import json
import os
import subprocess
import sys

from launching import ROOT
from train_report import FLOORS, Rates, ratios, table


def test_it_measures_every_key_without_the_peer(tmp_path):
    made, page = tmp_path / "made.json", tmp_path / "page.md"
    page.write_text("before\n<!-- train: begin -->\nold\n<!-- train: end -->\nafter\n")
    command = [sys.executable, str(ROOT / "benchmarks" / "train.py"), "--small", "--no_peers"]
    done = subprocess.run(
        [*command, "--json", str(made), "--page", str(page)],
        capture_output=True, text=True, timeout=280, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(made.read_text())
    assert {key for key in FLOORS if found[key] is None} == {"patchtst"}
    assert all(rate > 0 for rate in [*found["alone"].values(), *found["ranks"].values()])
    assert "old" not in page.read_text()
    assert f"| `ranks_2` | {found['ranks_2']:.2f} | at least 1.7 |" in page.read_text()
    assert page.read_text().endswith("<!-- train: end -->\nafter\n")
    assert "without PatchTST" in done.stderr


def test_ratios_compare_like_with_like():
    alone = {
        f"plain {data}, dropout {p}": 100.0 if p == "0" else 50.0
        for data in ("100 Hz", "mixed", "25 Hz")
        for p in ("0.1", "0")
    }
    alone |= {f"ours {data}, as it comes": 200.0 for data in ("100 Hz", "mixed", "25 Hz")}
    alone |= {f"ours {data}, fp32, dropout 0": 110.0 for data in ("100 Hz", "mixed", "25 Hz")}
    alone |= {f"loader {data}": rate for data, rate in (("100 Hz", 9000.0), ("mixed", 4000.0), ("25 Hz", 5000.0))}
    alone |= {"PatchTST 100 Hz, dropout 0": 88.0, "bare loop d 256": 21.0, "DeepSpeed d 256": 20.0}
    found = ratios(Rates(alone=alone, ranks={1: 110.0, 2: 198.0}))
    assert found == {
        "shipped_100hz": 4.0, "shipped_mixed": 4.0, "shipped_25hz": 4.0,
        "plain_100hz": 1.1, "plain_mixed": 1.1, "plain_25hz": 1.1,
        "patchtst": 1.25, "deepspeed_overhead": 0.05, "ranks_2": 1.8, "loader_headroom": 20.0,
    }  # fmt: skip
    assert "| `deepspeed_overhead` | 0.05 | at most 0.1 |" in table(Rates(alone=alone, ranks={1: 110.0, 2: 198.0}))
