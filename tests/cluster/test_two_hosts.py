"""Training on two hosts: each has its own network, processes, /tmp and /dev/shm, and an sshd."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import PORT, Hosts
from launching import DEEPSPEED, ROOT, TINY, environment, finish, flags, losses, run

SHORT = TINY | {"train.max_steps": 8, "train.val_every": 4, "optim.warmup_steps": 5}
KEY = "a-key-that-is-nobody-elses"


@pytest.fixture(scope="module")
def alone(shard_set, tmp_path_factory) -> list[tuple[int, float, float]]:
    """The losses of two ranks of one host."""
    out = tmp_path_factory.mktemp("alone")
    code, said = run(out, shard_set, SHORT)
    assert code == 0, said
    return losses(out)


def training(out: Path, shards: Path, settings: dict) -> list[str | Path]:
    return [ROOT / "launch" / "pretrain.py", "--out", out, "--data.shards", shards, *flags(SHORT | settings)]


def by_pdsh(hosts: Hosts, command: list[str | Path], cwd: Path, **env: str) -> subprocess.Popen:
    launcher = [DEEPSPEED, "--hostfile", hosts.hostfile, "--master_port", str(PORT)]
    return hosts.start([*launcher, *command], cwd=cwd, env=environment(PYTHONPATH=str(ROOT), **env))


def check_two_hosts(out: Path, said: str) -> None:
    assert (out / "finished").exists(), said
    for rank, name in enumerate(("host1", "host2")):
        assert f"on {name}" in (out / "log" / f"rank_{rank}.log").read_text()


@pytest.mark.launch
def test_two_hosts_by_pdsh_lose_what_one_host_loses(hosts, alone, shard_set, tmp_path):
    """… with the environment of the shell where it was typed, whose secrets nobody else sees."""
    shell = {"WANDB_MODE": "disabled", "WANDB_API_KEY": KEY}
    said = hosts.run([Path(sys.executable).with_name("aar-dist"), "env"], cwd=tmp_path, env=environment(**shell))
    assert KEY not in said
    launch = by_pdsh(hosts, training(tmp_path / "run", shard_set, {"tracking.mode": "offline"}), tmp_path, **shell)
    seen: set[str] = set()
    while launch.poll() is None and not (tmp_path / "run" / "metrics.jsonl").exists():
        seen |= {" ".join(words) for host in hosts for words in host.processes().values()}
    code, said = finish(launch)
    assert code == 0, said
    check_two_hosts(tmp_path / "run", said)
    assert losses(tmp_path / "run") == alone
    (carried,) = [line for line in said.splitlines() if "environment as of" in line]
    assert all(f" {name}" in carried for name in ("DS_ACCELERATOR", "OMP_NUM_THREADS", *shell))
    assert not list((tmp_path / "run").glob("wandb/offline-run-*"))  # WANDB_MODE has come to rank 0
    assert any("AAR_DIST_ENVIRONMENT" in words for words in seen)  # on a command line, as all that ssh carries
    assert KEY not in said
    assert not any(KEY in words for words in seen)
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in holders] == [(".aar_dist_env", 0o600)]


@pytest.mark.launch
@pytest.mark.slow
def test_two_hosts_without_ssh_lose_what_one_host_loses(hosts, alone, shard_set, tmp_path):
    """Each host types its own command, as the pods of Kubernetes do."""
    (tmp_path / "hostfile").write_text("pod-0 slots=1\npod-1 slots=1\n")  # names that nobody knows
    there = ["--hostfile", tmp_path / "hostfile", "--master_addr", "host1", "--master_port", str(PORT)]
    launches = [
        host.start(
            [DEEPSPEED, "--no_ssh", "--node_rank", str(k), *there, *training(tmp_path / "run", shard_set, {})],
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(ROOT)),
        )
        for k, host in enumerate(hosts)
    ]
    ends = [finish(launch) for launch in launches]
    assert [code for code, _ in ends] == [0, 0], ends
    check_two_hosts(tmp_path / "run", ends[0][1])
    assert losses(tmp_path / "run") == alone
