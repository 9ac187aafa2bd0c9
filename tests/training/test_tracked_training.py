"""Real trainings beside W&B servers that are away, silent, or come back: the numbers do not change, nothing is lost."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from launching import ROOT, TINY, environment, finish, flags, losses, run, signal_at_step, start, validations
from wandb_server import wandb_server

from aar_dist.cli import main as aar_dist
from aar_dist.training.tracking import mirror

SCRIPT = ROOT / "tests" / "training" / "tracked_training.py"
SILENT = {"tracking.mode": "online", "tracking.init_timeout_s": 1.0}


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_closed_port_and_a_silent_server_change_nothing(shard_set, tmp_path):
    with wandb_server() as server:
        server.silent = True
        runs = ["none=", f"closed={closed_port()}", f"silent={server.url}"]
        command = [sys.executable, SCRIPT, shard_set, tmp_path, *runs]
        env = environment(PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    none, closed, silent = (tmp_path / name for name in ("none", "closed", "silent"))
    assert losses(none) == losses(closed) == losses(silent)
    assert len(losses(none)) == TINY["train.max_steps"]
    assert all((out / "finished").exists() for out in (none, closed, silent))
    said = [line for line in done.stderr.splitlines() if "W&B" in line]
    assert 1 <= len(said) <= 3  # once each, and once more where the end of the run still waited for an answer
    assert all("aar-dist sync" in line for line in said)


def test_a_killed_run_goes_on_at_the_server_where_it_stood(shard_set, tmp_path, monkeypatch, capsys):
    """Killed with the server away, resumed with the server there, synced: every step once, each as in metrics.jsonl."""
    out = tmp_path / "run"
    with wandb_server() as server:
        env, settings = environment(**server.environment()), TINY | {"out": out, "data.shards": shard_set}
        command = [sys.executable, ROOT / "launch" / "pretrain.py", *flags(settings | SILENT | {"train.pictures": 2})]
        server.silent = True
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        signal_at_step(process, out, 7, 0, signal.SIGKILL)
        process.communicate(timeout=60)
        assert server.runs == {}
        server.silent = False
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        for _ in range(2):
            aar_dist(["sync", str(out)])
        mirror.forget()
        rows = server.run.history
    assert (server.run.steps, server.run.overwritten) == (list(range(25)), 0)
    assert [(r["_step"], r["loss"], r["grad_norm"]) for r in rows if "loss" in r] == losses(out)
    assert [(r["_step"], r["val/loss"]) for r in rows if "val/loss" in r] == [
        (row["step"], row["val/loss"]) for row in validations(out)
    ]
    assert "attempt" in server.run.config
    assert server.run.exit_codes[-1] == 0
    assert [name for name in server.uploads if "reconstruction_" in name]
    assert {"run died", "run finished"} == {alert["title"] for alert in server.run.alerts}
    assert any(key.startswith("system/") for key in rows[4])


@pytest.mark.slow
@pytest.mark.launch
def test_two_ranks_are_not_held_up_by_a_silent_server(shard_set, tmp_path):
    with wandb_server() as server:
        server.silent = True
        plain, silent = tmp_path / "plain", tmp_path / "silent"
        assert run(plain, shard_set)[0] == 0
        code, said = finish(start(silent, shard_set, SILENT, **server.environment()))
    assert code == 0, said
    assert losses(plain) == losses(silent)
