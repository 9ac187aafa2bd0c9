"""W&B's own client at work: an offline folder read back, and a server (a stand-in) that is there, away, slow or cross.

The server checks that the history has no gap; ``overwritten`` counts lines that came twice.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from wandb_log import history, summary
from wandb_server import wandb_server

from aar_dist.base.code import code_hash
from aar_dist.cli import main as aar_dist
from aar_dist.training.tracking import follower, mirror
from aar_dist.training.tracking.record import Record

SCRIPT = Path(__file__).with_name("tracked_script.py")
SECRETS = {"AWS_SECRET_ACCESS_KEY": "hunter2", "OMP_PASSWORD": "hunter2"}


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    mirror.forget()


@pytest.fixture
def server(monkeypatch):
    with wandb_server() as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "herd" / "run"
    folder.mkdir(parents=True)
    (folder / "store").mkdir()
    text = "store: {name: aar}\ndata: {shards: ['s3://id:hunter2@bucket/herd']}\n"
    (folder / "config.yaml").write_text(text + "tracking: {init_timeout_s: 8.0}\n")
    return folder


def launch(
    root: Path, first: int, last: int, *, pause_s: float = 0.0, hold_s: float = 0.0, **env: str
) -> subprocess.Popen:
    command = [sys.executable, SCRIPT, root, *map(str, (first, last, pause_s, hold_s))]
    return subprocess.Popen(command, env=os.environ | SECRETS | env, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> str:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return said


def wait(until, what: str) -> None:
    deadline = time.monotonic() + 90
    while not until():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def kill_all(process: subprocess.Popen) -> None:
    """As when the machine is gone: the run, its follower and W&B's helper at once."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in family:
        one.kill()
    psutil.wait_procs(family)


def sync(root: Path, capsys, *flags: str) -> str:
    aar_dist(["sync", str(root), *flags])
    return capsys.readouterr().out


def test_a_run_that_is_followed_arrives_whole_and_without_secrets(root, server):
    said = finish(launch(root, 0, 40, pause_s=0.05))
    run = server.run
    assert said == ""
    assert run.steps == list(range(41))
    assert run.overwritten == 0
    assert run.history[10]["val/loss"] == 10.0
    assert run.history[10]["loss"] == 5.0
    assert run.exit_codes == [0]
    assert [alert["title"] for alert in run.alerts] == ["run finished"]
    assert run.about == {"groupName": "aar", "jobType": "pretrain", "displayName": "run", "project": "aar_dist"}
    assert {made["artifactCollectionName"]: made["artifactTypeName"] for made in server.artifacts} == {
        "shards-herd": "shard-set",
        "model": "model",
    }
    assert run.shown("code")["hash"] == code_hash()
    assert run.shown("data") == {"shards": ["s3://bucket/herd"]}
    assert b"hunter2" not in b"".join(server.received)
    (root / "config.yaml").unlink()  # the user's own
    assert not [file for file in root.rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]


@pytest.mark.slow  # the client sends every 15 s only
def test_a_run_whose_machine_dies_is_completed_by_sync_and_by_the_next_launch(root, server, capsys):
    process = launch(root, 0, 20, pause_s=0.05, hold_s=90)
    wait(lambda: server.runs and server.run.steps, "nothing arrives")
    kill_all(process)
    sync(root, capsys)
    before = len(server.run.steps)
    assert before in (20, 21)  # the last step may lack its validation, and then waits for it
    finish(launch(root, 11, 30, WANDB_MODE="disabled"))
    finish(launch(root, 31, 40))
    assert (server.run.steps, server.run.overwritten) == (list(range(41)), 0)
    assert server.run.exit_codes[-1] == 0
    assert [row["attempt"] for row in server.run.history] == [1] * before + [2] * (31 - before) + [3] * 10
    assert "nothing new after step 40" in sync(root, capsys)
    assert (server.run.steps, server.run.overwritten) == (list(range(41)), 0)


@pytest.mark.slow
def test_a_killed_rank_is_told_of_by_who_followed_it(root, server):
    process = launch(root, 0, 9, hold_s=90)
    wait(lambda: server.runs and server.run.steps, "nothing arrives")
    process.send_signal(signal.SIGKILL)
    wait(lambda: server.run.exit_codes, "the run does not end at the server")
    assert server.run.exit_codes == [1]
    assert [(alert["title"], alert["severity"]) for alert in server.run.alerts] == [("run died", "ERROR")]
    assert Record(root).end_of(1) == "failed"


@pytest.mark.slow
def test_an_offline_run_is_synced_while_it_goes_on_and_its_folder_is_whole(root, server, capsys):
    process = launch(root, 0, 20, pause_s=0.02, hold_s=8, WANDB_MODE="offline")
    wait(lambda: (root / "metrics.jsonl").exists() and len((root / "metrics.jsonl").read_text()) > 300, "no steps")
    assert "to step" in sync(root, capsys)
    assert 0 < len(server.run.steps) <= 21
    finish(process)
    finish(launch(root, 11, 40, WANDB_MODE="offline"))
    assert "to step 40" in sync(root, capsys)
    assert (server.run.steps, server.run.overwritten) == (list(range(41)), 0)
    (folder,) = (root / "wandb").glob("offline-run-*")
    rows = history(folder)
    assert [row["_step"] for row in rows] == list(range(41))
    assert [row["attempt"] for row in rows] == [1] * 11 + [2] * 30
    assert "  val/loss " in summary(folder)


def test_sync_says_in_one_line_why_it_failed_and_goes_on_later(root, server, capsys, monkeypatch):
    def failed(*flags: str) -> str:
        with pytest.raises(SystemExit) as left:
            sync(root, capsys, *flags)
        assert left.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    finish(launch(root, 0, 40, WANDB_MODE="disabled"))
    monkeypatch.setattr(mirror, "FINISH_PATIENCE_S", 2.0)
    server.history_limit = 0
    assert "W&B has step -1 of 40; the rest did not arrive: run it again" in failed("--timeout", "2")
    mirror.forget()
    server.history_limit = None
    assert "41 steps sent, to step 40" in sync(root, capsys)
    assert (server.run.steps, server.run.overwritten) == (list(range(41)), 0)
    with Record(root).take_turn():
        assert "is being sent by process" in sync(root, capsys)
    mirror.forget()
    monkeypatch.setenv("WANDB_API_KEY", "b" * 40)
    assert "W&B did not start" in failed("--timeout", "4")
    mirror.forget()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert "W&B did not start" in failed("--timeout", "2")
    monkeypatch.delenv("WANDB_API_KEY")
    assert "no W&B key found: set WANDB_API_KEY" in failed()
    assert "expected config.yaml and metrics.jsonl" in failed(str(root / "store"))


def test_a_wrong_key_is_told_once_and_the_run_goes_on(root, server):
    said = finish(launch(root, 0, 39, pause_s=0.1, WANDB_API_KEY="b" * 40))
    (line,) = said.splitlines()
    assert line.startswith("W&B did not start: ")
    assert "Training goes on" in line
    assert f"aar-dist sync {root}" in line
    assert server.runs == {}
    assert len((root / "metrics.jsonl").read_text().splitlines()) == 48


class Watched(follower.Follower):
    """Asked whether its run has left, it asks ``has_left``."""

    has_left: Callable[[], bool]

    def _has_left(self) -> bool:
        time.sleep(0.1)
        return self.has_left()


@pytest.mark.slow
def test_a_server_that_comes_back_is_sent_everything(root, server, monkeypatch, capsys):
    finish(launch(root, 0, 30, WANDB_MODE="disabled"))
    (root / "config.yaml").write_text("tracking: {init_timeout_s: 1.0}\n")
    monkeypatch.setattr(follower, "RETRY_S", (0.2,))
    server.silent = True
    follows = Watched(Record(root), "online", 1, watches=os.getpid())

    def has_left() -> bool:
        server.silent = "failed: " not in capsys.readouterr().out and server.silent
        return bool(server.runs) and len(server.run.steps) >= 30

    follows.has_left = has_left
    follows.run()
    assert (server.run.steps, server.run.overwritten) == (list(range(31)), 0)
