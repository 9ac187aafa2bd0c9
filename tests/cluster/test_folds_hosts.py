"""Folds on two hosts by Ray, one of which is cut off while it trains."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from finetune_toys import folds_settings, make_shards, publish_backbone
from hosts import Host, Hosts
from launching import ROOT, environment, flags
from ray_nodes import MEMORY, SETTINGS

from aar_dist.base import json_lines

pytestmark = [pytest.mark.launch, pytest.mark.slow]

RAY = Path(sys.executable).with_name("ray")
FOLDS_PY = [sys.executable, ROOT / "launch" / "folds.py"]
PORT = 6379
KEEPALIVE = {f"RAY_grpc_{side}keepalive_{what}_ms": "10000" for side in ("", "client_") for what in ("time", "timeout")}
LONG = {"baselines": "none", "probes": "none", "final": "false", "strategies": '{"net": {}}', "train.epochs": 40}
PATIENCE_S = 1800.0


def node(host: Host, *words: str) -> subprocess.Popen:
    """Ray on a host, until the host is gone."""
    room = [f"--node-ip-address={host.address}", "--num-cpus=1", f"--object-store-memory={MEMORY}", "--block"]
    env = environment(**SETTINGS, **KEEPALIVE)
    return host.start([RAY, "start", *words, *room], cwd=ROOT, env=env, stdout=subprocess.DEVNULL)


def begun_on(out: Path, host: Host) -> list[dict]:
    return [row for row in json_lines.read(out / "jobs.jsonl") if row["event"] == "begun" and row["host"] == host.name]


def test_a_host_that_is_cut_off_loses_only_its_jobs(hosts: Hosts, tmp_path):
    shards, start = make_shards(tmp_path), publish_backbone(tmp_path / "store").path
    said = folds_settings(shards, str(start), tmp_path / "two", **LONG)
    head = f"{hosts[0].address}:{PORT}"
    node(hosts[0], "--head", f"--port={PORT}", "--include-dashboard=false")
    time.sleep(5)
    node(hosts[1], f"--address={head}")
    more = flags(said | {"ray_address": head})
    folds = hosts[0].start([*FOLDS_PY, *more], cwd=ROOT, env=environment(**SETTINGS, **KEEPALIVE))
    deadline = time.monotonic() + PATIENCE_S
    while not (begun_on(tmp_path / "two", hosts[1]) and list((tmp_path / "two").glob("runs/**/COMPLETE"))):
        assert folds.poll() is None, folds.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    cut_at = time.time()
    hosts[1].cut()
    text = folds.communicate(timeout=PATIENCE_S)[0]
    hosts[1].mend()
    assert folds.returncode == 0, text
    events = json_lines.read(tmp_path / "two" / "jobs.jsonl")
    print(text, cut_at, *events, sep="\n")
    done = Counter(row["job"] for row in events if row["event"] == "done")
    assert len(done) == 2
    assert set(done.values()) == {1}
    assert "its machine is gone" in text
    alone = flags(said | {"out": tmp_path / "one", "store.path": tmp_path / "one" / "store"})
    subprocess.run([*FOLDS_PY, *alone], cwd=ROOT, env=environment(), check=True, capture_output=True)
    hashes = [json.loads((tmp_path / name / "results.json").read_text())["hashes"] for name in ("one", "two")]
    assert hashes[0] == hashes[1]
