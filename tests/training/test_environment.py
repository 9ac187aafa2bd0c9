"""What is set before DeepSpeed starts."""

import os
import subprocess
import sys

import pytest
import torch

from aar_dist.base.errors import ConfigError
from aar_dist.training import environment
from aar_dist.training.ranks import Ranks, any_rank, from_main, sum_ranks


def test_a_dead_owners_lock_is_cleared_and_a_live_ones_stays(tmp_path):
    for name in ("dead", "live"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    holder = subprocess.Popen(
        [sys.executable, "-c", f"f = open({str(tmp_path / 'live' / 'lock')!r}); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    holder.stdout.readline()
    assert environment.clear_dead_locks(tmp_path) == [tmp_path / "dead" / "lock"]
    holder.communicate(b"\n")
    assert environment.clear_dead_locks(tmp_path) == [tmp_path / "live" / "lock"]


def test_no_compiler_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler"):
        environment.require_compiler()


def test_extensions_belong_to_this_environment(monkeypatch):
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    assert str(environment.extensions_folder()).startswith(sys.prefix)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "elsewhere")
    assert str(environment.extensions_folder()) == "elsewhere"


def test_threads_share_the_cores(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    try:
        for local, threads in [(1, 8), (4, 2), (16, 1)]:
            environment.set_threads(Ranks(0, local, 0, local))
            assert torch.get_num_threads() == threads
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        environment.set_threads(Ranks(0, 4, 0, 4))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_ranks_read_the_launchers_variables(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert Ranks.from_environment() == Ranks(0, 1, 0, 1)
    for name, value in {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 1, "LOCAL_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert Ranks.from_environment() == Ranks(3, 4, 1, 2)
    assert not Ranks.from_environment().main


def test_one_process_decides_alone():
    assert any_rank(True)
    assert not any_rank(False)
    assert from_main(lambda: 5) == 5
    assert torch.equal(sum_ranks(torch.ones(2)), torch.ones(2))
