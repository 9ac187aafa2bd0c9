"""Publishers and readers on one store, one publisher killed: in a folder, in a bucket, and over http."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import boto3
import pytest
from servers import nginx, object_store
from team import NAME, Readers, publish

from aar_dist.store.registry import Store

SCRIPT = Path(__file__).with_name("team.py")


def start(act: str, where: str, seconds: float, more: str) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), act, where, str(seconds), more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: subprocess.Popen) -> list[str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), err
    return out.splitlines()


def places(kind: str, tmp_path: Path, stack: ExitStack) -> tuple[str, str]:
    """Where is published, and where the same is read over http."""
    if kind == "bucket":
        address = stack.enter_context(object_store("bucket"))
        anyone = {"Effect": "Allow", "Principal": "*", "Resource": "*", "Action": ["s3:GetObject", "s3:HeadObject"]}
        boto3.client("s3").put_bucket_policy(Bucket="bucket", Policy=json.dumps({"Statement": [anyone]}))
        return "s3://bucket/shared", f"{address}/bucket/shared"
    for name in ("store", "nginx"):
        (tmp_path / name).mkdir()
    return str(tmp_path / "store"), stack.enter_context(nginx(tmp_path / "store", tmp_path / "nginx"))


def check(store: Store, published: list[int], readers: list[dict]) -> None:
    """No number twice, nothing partial, everything that was said to stand is there."""
    assert len(published) == len(set(published))
    assert set(published) <= set(store.versions(NAME))
    for read in readers:
        assert read["wrong"] == []
        assert read["reads"] > 0
        assert len(read["versions"]) > 1


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_two_publishers_one_killed_and_twenty_readers(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("AAR_DIST_CACHE", str(tmp_path / "cache"))
    with ExitStack() as stack:
        where, web = places(kind, tmp_path, stack)
        killed = start("publish", where, 60, "killed")
        reading = [Readers(place, 10, tmp_path / "cache") for place in (where, web)]
        first = killed.stdout.readline()  # its torch is imported by now
        store, here, over = Store(where), [], threading.Event()

        def go_on() -> None:
            while not over.is_set():
                here.append(publish(store, 1000 + len(here), "stays"))

        lasting = threading.Thread(target=go_on)
        lasting.start()
        time.sleep(1.0)
        killed.kill()
        time.sleep(1.0)
        over.set()
        lasting.join()
        there = [int(line) for line in [first, *said(killed)]]
        read = [vars(readers.end()) for readers in reading]
        check(store, [*there, *here], read)
        assert len(here) > 1
        assert Store(web).names() == [NAME]
        assert Store(web).versions(NAME) == store.versions(NAME)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_minute_of_a_team(tmp_path, kind, monkeypatch, capsys):
    monkeypatch.setenv("AAR_DIST_CACHE", str(tmp_path / "cache"))
    with ExitStack() as stack:
        where, web = places(kind, tmp_path, stack)
        publishers = [start("publish", where, 60, who) for who in ("killed", "stays")]
        readers = [start("read", place, 60, "5") for place in (where, web) for _ in range(2)]
        first = publishers[0].stdout.readline()  # its torch is imported by now
        time.sleep(random.uniform(25, 35))
        publishers[0].kill()
        published = [[int(line) for line in lines] for lines in ([first, *said(publishers[0])], said(publishers[1]))]
        assert min(map(len, published)) > 1
        read = [json.loads(said(process)[0]) for process in readers]
        check(Store(where), [number for each in published for number in each], read)
        with capsys.disabled():
            print(f"\n{kind}: {len(published[0])} versions by the killed one, {len(published[1])} by the other, "
                  f"{[r['reads'] for r in read]} reads of {[len(r['versions']) for r in read]} versions")  # fmt: skip
