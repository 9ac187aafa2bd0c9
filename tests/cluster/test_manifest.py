"""The command of the Kubernetes manifest in docs/clusters.md, on two hosts in place of two pods."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hosts import Host, Hosts
from launching import ROOT, TINY, environment, flags, losses, run, wait_for_step

pytestmark = [pytest.mark.launch, pytest.mark.slow]

SETTINGS = TINY | {"train.max_steps": 120, "train.val_every": 60, "train.save_every": 60}


def manifest() -> list[dict]:
    (text,) = re.findall(r"```yaml\n(apiVersion.*?)```", (ROOT / "docs" / "clusters.md").read_text(), re.DOTALL)
    return list(yaml.safe_load_all(text))


def command(out: Path, shards: Path) -> list[str]:
    """What a pod runs, with names and numbers of here."""
    (container,) = manifest()[1]["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    here = {
        "slots=8": "slots=1",
        "pretrain-0.pretrain": "10.77.0.1",
        "s3://bucket/herd": str(shards),
        "--out /runs/herd": f"--out /runs/herd {shlex.join(flags(SETTINGS))}",
    }
    for name, ours in [*here.items(), ("/runs/herd", str(out))]:
        assert name in script
        script = script.replace(name, ours)
    return [*container["command"], script]


def pod(host: Host, index: int, words: list[str]) -> subprocess.Popen:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return host.start(words, cwd=ROOT, env=environment(PATH=path, JOB_COMPLETION_INDEX=str(index)))


def shell_of(host: Host) -> int:
    return next(pid for pid, words in host.processes().items() if "JOB_COMPLETION_INDEX" in " ".join(words[2:3]))


def ends(hosts: Hosts, words: list[str]) -> list[tuple[int, str]]:
    pods = [pod(host, index, words) for index, host in enumerate(hosts)]
    said = [each.communicate(timeout=240)[0] for each in pods]
    return [(each.returncode, text) for each, text in zip(pods, said, strict=True)]


def test_a_service_names_the_pods_of_the_job():
    service, job = manifest()
    pods = job["spec"]["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pods["subdomain"] == service["metadata"]["name"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2


def test_pods_that_are_evicted_save_and_go_on(hosts, shard_set, tmp_path):
    code, said = run(tmp_path / "alone", shard_set, SETTINGS)
    assert code == 0, said
    out = tmp_path / "run"
    words = command(out, shard_set)
    pods = [pod(host, index, words) for index, host in enumerate(hosts)]
    wait_for_step(out, 5, *pods)
    os.kill(shell_of(hosts[1]), signal.SIGTERM)
    evicted = [each.communicate(timeout=120)[0] for each in pods]
    assert [each.returncode != 0 for each in pods] == [True, True], evicted  # so that Kubernetes starts them again
    assert 2 not in [each.returncode for each in pods], "which would be the end of the job"
    assert any("and saved" in text for text in evicted), evicted
    again = ends(hosts, words)
    assert [code for code, _ in again] == [0, 0], again
    assert "goes on from step" in again[0][1]
    assert losses(out) == losses(tmp_path / "alone")
