"""The mirror: never needed, never in the way, one id, steps that only go up."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aar_dist.training import tracking
from aar_dist.training.config import TrackingConfig

WANDB = str(Path(sys.executable).with_name("wandb"))


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def summary(folder: Path) -> str:
    """What W&B's own reader finds in an offline run."""
    done = subprocess.run(
        [WANDB, "leet", "inspect", "--summary", str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(out, warnings, **options):
    config = TrackingConfig(**options.pop("config", {}))
    return tracking.start(config, out, "abc12345", {"train": {"seed": 1}}, warn=warnings.append, **options)


def test_offline_without_a_key_and_readable_afterwards(tmp_path):
    warnings = []
    run = start(tmp_path, warnings)
    for step in range(4):
        run.log({"step": step, "loss": 1.0 / (step + 1), "lr": 0.1, "segments_per_s": 9.0})
    run.log({"step": 3, "val/loss": 0.5})
    run.close()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*-abc12345")
    said = summary(folder)
    for line in ("loss", "val/loss", "lr", "segments_per_s"):
        assert f"  {line} " in said
    assert warnings == []


def test_mode_variable_wins_then_config_then_key(monkeypatch, tmp_path):
    def mode(setting="auto"):
        return tracking._mode(TrackingConfig(mode=setting))

    assert (mode(), mode("online")) == ("offline", "online")
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    assert mode() == "online"
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert mode("online") == "disabled"
    assert isinstance(start(tmp_path, []), tracking.NoTracker)


def test_a_server_that_says_nothing_is_given_up_soon(monkeypatch, tmp_path):
    warnings = []
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        before = time.monotonic()
        run = start(tmp_path, warnings, config={"init_timeout_s": 2.0})
        assert time.monotonic() - before < 20
    run.log({"step": 1, "loss": 1.0})
    run.close()
    assert len(warnings) == 1
    assert "training goes on" in warnings[0]
    assert list((tmp_path / "wandb").glob("offline-run-*-abc12345"))


class Fake:
    """Stands for a W&B run."""

    def __init__(self, error=None):
        self.rows, self.error = [], error

    def log(self, row, step):
        if self.error:
            raise self.error
        self.rows.append((step, row))

    finish = log


def with_fake(tmp_path, fake, **options):
    warnings = []
    run = start(tmp_path, warnings, config={"mode": "offline"}, **options)
    run.close()
    run._run = fake
    return run, warnings


def test_rows_sent_before_a_restart_are_not_sent_again(tmp_path):
    fake = Fake()
    run, _ = with_fake(tmp_path, fake, last_step=5)
    for step in range(3, 8):
        run.log({"step": step, "loss": 1.0})
    run.log({"step": 7, "val/loss": 1.0})
    assert [step for step, _ in fake.rows] == [6, 7, 7]


def test_a_failing_server_stops_nothing_and_is_mentioned_once(tmp_path):
    run, warnings = with_fake(tmp_path, Fake(RuntimeError("server\nis gone")))
    for step in range(3):
        run.log({"step": step})
    run.close()
    assert warnings == ["W&B failed, training goes on: server is gone"]


def test_the_id_is_made_once(tmp_path):
    first = tracking.run_id(tmp_path)
    assert len(first) == 8
    assert tracking.run_id(tmp_path) == first
    assert tracking.run_id(tmp_path / "other") != first
