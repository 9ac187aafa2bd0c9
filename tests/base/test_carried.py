"""What ranks on other hosts get of the shell's environment."""

import json
import os
import stat
import subprocess
import sys

import pytest

from aar_dist.base import carried
from aar_dist.base.errors import ConfigError


def test_what_belongs_to_a_process_or_a_host_stays():
    environ = {
        "WANDB_MODE": "offline",
        "https_proxy": "p:1",
        "CXX": "g++",
        "NCCL_DEBUG": "INFO",
        "HOME": "/h",
        "X": "1",
    }
    stays = {"CUDA_VISIBLE_DEVICES": "0", "DS_ENV_FILE": "f", carried.POINTER: "f", "WANDB_SERVICE": "2-1"}
    found = carried.travelling(environ | stays, ["X"])
    assert list(found) == ["CXX", "NCCL_DEBUG", "WANDB_MODE", "X", "https_proxy"]
    with pytest.raises(ConfigError, match="Y is not set in this shell"):
        carried.travelling(environ, ["Y"])


def test_only_the_owner_can_read_what_is_kept(tmp_path, monkeypatch):
    file = tmp_path / "kept"
    file.write_text("of an earlier launch, for all to read")
    lines = carried.exports({"DS_ACCELERATOR": "cpu", "WANDB_API_KEY": "secret 'x'\n\"$y\""}, file)
    assert lines == {carried.POINTER: str(file), "DS_ACCELERATOR": "cpu"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.setenv(carried.POINTER, str(file))
    monkeypatch.setenv("WANDB_API_KEY", "the host's own")
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    carried.load()
    assert os.environ["WANDB_API_KEY"] == "secret 'x'\n\"$y\""
    assert os.environ["DS_ACCELERATOR"] == "cpu"


@pytest.mark.parametrize("value", ["50%h", "a;b", 'a"b', "$HOME", "`id`", "a\nb"])
def test_what_ssh_or_pdsh_would_change_is_refused(tmp_path, value):
    with pytest.raises(ConfigError, match="cannot be handed on by ssh and pdsh"):
        carried.exports({"DS_ACCELERATOR": value}, tmp_path / "kept")


def test_a_file_written_by_hand_keeps_its_lines(tmp_path, monkeypatch):
    """… and wins; our own lines go when the variable has gone. The launcher breaks on a blank line: none is left."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(carried.TRAVELS)]:
        monkeypatch.delenv(name)
    file = tmp_path / ".deepspeed_env"
    file.write_text("NCCL_DEBUG=WARN\n\nFOO=1")
    file.chmod(0o600)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    carried.main([])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    pointer = f"{carried.POINTER}={tmp_path / '.aar_dist_env'}"
    assert file.read_text().splitlines() == ["NCCL_DEBUG=WARN", "FOO=1", pointer, "DS_ACCELERATOR=cpu"]
    assert "NCCL_DEBUG" not in json.loads((tmp_path / ".aar_dist_env").read_text())["variables"]
    monkeypatch.delenv("DS_ACCELERATOR")
    carried.main([])
    assert file.read_text().splitlines() == ["NCCL_DEBUG=WARN", "FOO=1", pointer]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"written": "today"}', '{"variables": {"OMP_NUM_THREADS": 1}}'])
def test_a_host_that_cannot_read_the_file_says_so_in_one_line(tmp_path, text):
    if text is not None:
        (tmp_path / "none").write_text(text)
    program = "from aar_dist.base.errors import run_door; run_door(lambda: print('went on'))"
    env = os.environ | {carried.POINTER: str(tmp_path / "none")}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "in a folder that all hosts share" in done.stderr
    assert len(done.stderr.splitlines()) == 1
