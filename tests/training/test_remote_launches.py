"""Two ranks that train from a server which fails on purpose."""

import itertools
import os
import re
import signal
import time
from pathlib import Path

import pytest
from fault_proxy import fault_proxy
from full_disk import small_disk
from launching import finish, losses, rank_process, run, start, validations
from servers import nginx

from aar_dist.shards.build import BuildOptions, build
from aar_dist.shards.format import INFO, MANIFEST

pytestmark = pytest.mark.launch

# Few lanes: a batch is cut from a few of the shards, so that the others can go.
SETTINGS = {"data.lanes": 2, "train.val_every": 12, "train.save_every": 4}


@pytest.fixture(scope="module")
def many(recordings, tmp_path_factory) -> Path:
    """Twelve shards of 5.1 MB together."""
    options = BuildOptions(datasets=("fast", "slow"), longest_segment_s=1.0, shard_bytes=200_000)
    return build(recordings, tmp_path_factory.mktemp("shards") / "many", options, workers=1).folder


@pytest.fixture(scope="module")
def served(many, tmp_path_factory):
    with nginx(many, tmp_path_factory.mktemp("nginx")) as url:
        yield url


def wait_until(true, process, timeout_s=90) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def numbers(out: Path) -> list:
    names = ("step", "val/loss", "val/loss/fast", "val/loss/slow")
    return [losses(out), [[row[name] for name in names] for row in validations(out)]]


def test_a_run_through_many_faults_equals_a_local_one(many, served, tmp_path):
    """A rank killed in mid-download, then the same command: 500s, cuts, short bodies, a stall of 10 s, a wrong hash,
    the server gone for 20 s, and a disk that somebody else fills."""
    shards = sorted(path.name for path in many.glob("*.tar"))
    with fault_proxy(served) as proxy, small_disk(tmp_path / "disk", 6_500_000) as disk:
        settings = SETTINGS | {"data.cache": str(disk.path), "data.cache_limit": "1GB"}
        out = tmp_path / "run"
        proxy.faults[MANIFEST] = ["cut", "short"]
        proxy.always, proxy.stall_s = dict.fromkeys(shards, "stall"), 600.0
        killed = start(out, proxy.url, settings, prefix=disk.prefix, own_group=True)
        wait_until(lambda: list(disk.inside.glob("*/*.part")) and (out / "log" / "rank_1.log").exists(), killed)
        wait_until(lambda: "is process" in (out / "log" / "rank_1.log").read_text(), killed)
        os.kill(rank_process(out, 1), signal.SIGKILL)
        os.killpg(killed.pid, signal.SIGKILL)  # the launcher would wait for the other rank, which downloads
        killed.wait()
        assert list(disk.inside.glob("*/*.part"))
        proxy.always, proxy.stall_s = {}, 10.0
        faults = [["gone"], ["500", "cut"], ["short"], ["wrong"], ["less", "503"], ["stall"], ["cut"] * 3]
        proxy.faults.update(dict(zip(shards, itertools.cycle(faults), strict=False)), **{INFO: ["502"]})
        proxy.faults[shards[len(faults)]] = []  # gone once
        going_on = start(out, proxy.url, settings, prefix=disk.prefix)
        wait_until(lambda: len(list(disk.inside.glob("*/*"))) > 5, going_on)
        (disk.inside / "ballast").write_bytes(b"x" * 2_500_000)
        code, said = finish(going_on)
        assert code == 0, said
    assert {"gone", "stall", "wrong", "cut", "short", "less", "500"} <= {fault for _, fault in proxy.taken}
    code, said = run(tmp_path / "local", many, SETTINGS)
    assert code == 0, said
    assert numbers(out) == numbers(tmp_path / "local")


def test_a_hash_that_stays_wrong_is_one_error_on_every_rank(many, served, tmp_path):
    with fault_proxy(served) as proxy:
        bad = "fast-train-000003.tar"
        proxy.always[bad] = "wrong"
        begin = time.monotonic()
        code, said = run(tmp_path / "run", proxy.url, SETTINGS | {"data.cache": str(tmp_path / "cache")})
    assert time.monotonic() - begin < 60
    assert code == 2, said
    error = rf"error: (rank 1: )?{proxy.url}/{bad}: sha256 \w+, expected \w+: wrong 3 times"
    (told,) = [line for line in said.splitlines() if line.startswith("error")]
    assert re.match(error, told)
    assert all(re.search(error, log.read_text()) for log in (tmp_path / "run" / "log").glob("rank_?.log"))
    assert "Traceback" not in said
    assert "interrupted" not in said
