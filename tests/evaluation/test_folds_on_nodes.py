"""Folds on two Ray nodes: one dies, or is left without its head; the one who asked is stopped or killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from finetune_toys import folds_settings
from launching import ROOT, environment, flags
from ray_nodes import Node, ray_cluster

from aar_dist.base import json_lines
from aar_dist.store.registry import Store

pytestmark = [pytest.mark.launch, pytest.mark.slow]

PATIENCE_S = 1200.0
BASELINES = {"baselines": '["majority", "logistic"]', "final": "false"}
FORTY = BASELINES | {"n_folds": 5, "seeds": "[1, 2]", "train.epochs": 2, "probes": '["linear", "knn"]'}
"""Two strategies with two seeds, two probes and two baselines, in five folds."""
CHOOSING = BASELINES | {"probes": "none", "strategies": '{"net": {}}', "choose": '{"optim.lr": [0.0001, 0.001]}'}
ADDRESSES = ("127.0.6.2", "127.0.6.3")


def start(said: dict) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "launch" / "folds.py"), *flags(said)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment(), **options)


def end(process: subprocess.Popen) -> str:
    text, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, text
    return text


def hashes(out: Path) -> dict[str, str]:
    """sha256 of every prediction, and of the folds."""
    made: dict[str, str] = json.loads((out / "results.json").read_text())["hashes"]
    return made


def history(out: Path, *events: str) -> list[dict]:
    return [row for row in json_lines.read(out / "jobs.jsonl") if row["event"] in events]


def wait_until(true: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the folds do not get on"
        time.sleep(0.05)


def at_work(out: Path, node: Node) -> list[Path]:
    """Folders of the runs that a node trains now and that have a checkpoint."""
    place = {row["job"]: row["address"] for row in history(out, "begun")}
    over = {row["job"] for row in history(out, "done", "failed")}
    busy = {row["process"] for row in history(out, "begun") if place[row["job"]] == node.ip and row["job"] not in over}
    logs = [log for log in out.glob("*/**/log/rank_0.log") if trainer(log.parents[1]) in busy]
    return [log.parents[1] for log in logs if list(log.parents[1].glob("checkpoints/step_*/COMPLETE"))]


def trainer(folder: Path) -> int:
    """The process that trained a run last."""
    return int(re.findall(r"is process (\d+) on", (folder / "log" / "rank_0.log").read_text())[-1])


def check_once(out: Path, jobs: int, other: Path, lost: Sequence[str] = (), untold: int = 0) -> None:
    """All are there, none was done twice, and everything is as in another folder. Who is killed may not have written
    down the end of some that were done."""
    done = Counter(row["job"] for row in history(out, "done"))
    assert jobs - untold <= len(done) <= jobs
    assert set(done.values()) == {1}
    assert {row["job"] for row in history(out, "again")} <= {*lost}
    assert all(Store(out / "store").versions(name) == [1] for name in Store(out / "store").names())
    assert hashes(out) == hashes(other)


@pytest.fixture(scope="module")
def serial(shards, backbone, tmp_path_factory) -> Path:
    """One job after the other, on no cluster."""
    out = tmp_path_factory.mktemp("serial") / "folds"
    end(start(folds_settings(shards, backbone, out, **CHOOSING, workers=1)))
    return out


def test_forty_jobs_on_two_nodes_of_which_one_dies(shards, backbone, tmp_path):
    before = time.monotonic()
    alone = tmp_path / "serial"
    end(start(folds_settings(shards, backbone, alone, **FORTY, workers=1)))
    serial_s = time.monotonic() - before
    out = tmp_path / "two"
    with ray_cluster(*ADDRESSES) as nodes:
        before = time.monotonic()
        process = start(folds_settings(shards, backbone, out, **FORTY, ray_address=nodes[0].head))
        wait_until(lambda: len(history(out, "done")) >= 10 and at_work(out, nodes[1]), process)
        doing = {row["job"] for row in history(out, "begun") if row["address"] == ADDRESSES[1]}
        nodes[1].kill()
        said = end(process)
        both_s = time.monotonic() - before
    lost = {row["job"] for row in history(out, "again")}
    print(f"{serial_s:.1f} s one after the other, {both_s:.1f} s on two nodes, again: {lost}\n{said}")
    assert len(hashes(out)) == 41
    assert lost <= doing
    check_once(out, 40, alone, lost)
    assert {row["address"] for row in history(out, "begun")} == {*ADDRESSES}
    assert "its machine is gone" in said
    assert "raylet" not in said, "Ray itself is silent"


def test_a_worker_whose_machine_was_given_up_ends_and_another_goes_on(serial, shards, backbone, tmp_path):
    """Ray's process on a node is killed; those that train there are not."""
    out = tmp_path / "two"
    with ray_cluster(*ADDRESSES) as nodes:
        process = start(folds_settings(shards, backbone, out, **CHOOSING, ray_address=nodes[0].head))
        wait_until(lambda: at_work(out, nodes[1]), process)
        folder = at_work(out, nodes[1])[0]
        workers = nodes[1].behead()
        end(process)
        assert not any(one.is_running() for one in workers)
    lost = [row["job"] for row in history(out, "again")]
    assert lost
    check_once(out, 10, serial, lost)
    moved = [*out.glob(f"*/**/{folder.name}/said.txt"), *out.glob("runs/net/*/fold_*/said.txt")]
    assert any("goes on from step" in file.read_text() for file in moved)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_same_command_goes_on_after_its_end(serial, shards, backbone, tmp_path, number):
    """Asked to stop by Ctrl-C, or killed outright, while both nodes train."""
    out = tmp_path / "two"
    with ray_cluster(*ADDRESSES) as nodes:
        said = folds_settings(shards, backbone, out, **CHOOSING, ray_address=nodes[0].head)
        process = start(said)
        wait_until(lambda: all(at_work(out, node) for node in nodes), process)
        os.kill(process.pid, number)
        text, _ = process.communicate(timeout=PATIENCE_S)
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert (
                text.splitlines()[-1] == "interrupted: nothing that was finished is lost, and the same command goes on"
            )
        end(start(said))
    check_once(out, 10, serial, [row["job"] for row in history(out, "again")], untold=len(nodes))


def test_four_folds_share_a_gpu(shards, backbone, tmp_path):
    """As Ray counts them; this machine needs none."""
    out = tmp_path / "shared"
    with ray_cluster(ADDRESSES[0], cores=4, gpus=1) as nodes:
        said = folds_settings(shards, backbone, out, **CHOOSING, n_folds=3, ray_address=nodes[0].head, gpus=0.25)
        process = start(said)
        wait_until(lambda: len(at_work(out, nodes[0])) >= 3, process)
        end(process)
