"""Building into an object store: the same bytes, one builder at a time, killed and taken up, nothing left over."""

import hashlib
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from servers import faulty, nginx, object_store
from test_build import assert_refused, build_command, hashes

from aar_dist.base.errors import ShardError, StorageError
from aar_dist.base.object_store import ObjectStore
from aar_dist.base.remote import Remote
from aar_dist.base.this_process import this_process
from aar_dist.cli import main as aar_dist
from aar_dist.shards import lease
from aar_dist.shards.build import BuildOptions, build
from aar_dist.shards.summary import summarize
from aar_dist.shards.verify import verify_shards
from aar_dist.shards.writer import write_shard

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store():
    with object_store("bucket") as address:
        yield address


@pytest.fixture
def place(store, request) -> Remote:
    """A folder of the bucket of this test's own."""
    return Remote(f"s3://bucket/{request.node.name}")


def remote_hashes(remote: Remote) -> dict[str, str]:
    return {name: hashlib.sha256(remote.read(name)).hexdigest() for name in remote.names()}


def told(remote: Remote, count: int, **who: object) -> bytes:
    return json.dumps({**this_process(), "token": "x", "beat": count, **who}).encode()


def interrupted_at(n: int):
    """A ``write_shard`` that is interrupted at the n-th shard."""
    written = []

    def write(job):
        written.append(job.spec.name)
        if len(written) == n:
            raise KeyboardInterrupt
        return write_shard(job)

    return write


def test_the_same_bytes_as_in_a_folder(recordings, options, shard_set, place):
    build(recordings, place.url, options, workers=1)
    assert remote_hashes(place) == hashes(shard_set)
    again = build(recordings, place.url, options, workers=1)
    assert again.info["identity"] == summarize(shard_set).identity
    assert summarize(place.url).parts == summarize(shard_set).parts
    with pytest.raises(ShardError, match="finished shard set with other options"):
        build(recordings, place.url, BuildOptions(datasets=("fast",), longest_segment_s=1.0), workers=1)


@pytest.mark.launch
def test_two_workers_write_the_same_bytes(recordings, options, shard_set, place):
    build(recordings, place.url, options, workers=2)
    assert remote_hashes(place) == hashes(shard_set)


def test_an_interrupted_build_goes_on(recordings, options, shard_set, place, monkeypatch):
    import aar_dist.shards.build as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_shard", interrupted_at(4))
        with pytest.raises(KeyboardInterrupt):
            build(recordings, place.url, options, workers=1)
    with pytest.raises(ShardError, match="its build did not finish"):
        verify_shards(place.url)
    assert not place.names(".build/lock"), "an interrupted build lets go"
    with pytest.raises(ShardError, match="unfinished build of other recordings or options"):
        build(recordings, place.url, BuildOptions(datasets=("fast",), longest_segment_s=1.0), workers=1)
    uploaded, put = [], ObjectStore.put

    def noted(self, name, data, *, only_if_new):
        uploaded.append(name)
        put(self, name, data, only_if_new=only_if_new)

    monkeypatch.setattr(ObjectStore, "put", noted)
    build(recordings, place.url, options, workers=1)
    assert remote_hashes(place) == hashes(shard_set)
    assert len([name for name in uploaded if name.endswith(".tar")]) == len(list(shard_set.glob("*.tar"))) - 3


def test_a_build_killed_by_sigkill_goes_on(recordings, shard_set, place, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = build_command(recordings, place.url)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not [n for n in place.names() if n.endswith(".tar")] and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (lock,) = place.names(".build/lock")
    assert not list(tmp_path.iterdir()), "what was written on the way to the store went with the process"
    with monkeypatch.context() as patched:
        patched.setattr(
            lease.time, "sleep", lambda s: pytest.fail("a process of this machine that is gone is waited for")
        )
        assert not lease.Lease(place, ".build")._is_alive(lock)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert remote_hashes(place) == hashes(shard_set)
    assert str(place) in done.stdout.replace("\n", "")


def test_a_second_builder_is_refused(recordings, options, place):
    lock = ".build/lock-000001"
    place.write(lock, told(place, 0))
    with pytest.raises(ShardError, match="another build is at work here"):
        build(recordings, place.url, options, workers=1)
    assert lock in place.names()


@pytest.mark.parametrize("silent", [True, False])
def test_a_builder_of_another_machine_is_listened_to(recordings, options, shard_set, place, silent, monkeypatch):
    monkeypatch.setattr(lease, "SILENT_S", 1.0)
    monkeypatch.setattr(lease, "LOOK_EVERY_S", 0.1)
    place.write(".build/lock-000007", told(place, 0, machine="another"))
    if silent:
        build(recordings, place.url, options, workers=1)
        assert remote_hashes(place) == hashes(shard_set)
        return
    looked = []

    def beats(self, name):
        looked.append(name)
        return {"machine": "another", "beat": len(looked)}

    monkeypatch.setattr(lease.Lease, "_read", beats)
    with pytest.raises(ShardError, match="another build is at work here"):
        build(recordings, place.url, options, workers=1)


def test_a_builder_that_slept_stops(recordings, options, place, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    import aar_dist.shards.build as module

    def overtaken(job):
        write_shard(job)
        place.write(".build/lock-000002", told(place, 0, machine="another"))
        time.sleep(0.2)

    monkeypatch.setattr(module, "write_shard", overtaken)
    with pytest.raises(ShardError, match="another build took over"):
        build(recordings, place.url, options, workers=1)
    assert ".build/lock-000002" in place.names(), "the other's lock stays"
    assert "manifest.parquet" not in place.names()


def test_a_late_attempt_writes_nothing(recordings, options, place, monkeypatch):
    import aar_dist.shards.build as module

    jobs = []
    monkeypatch.setattr(module, "write_shard", lambda job: (jobs.append(job), write_shard(job))[1])
    build(recordings, place.url, options, workers=1)
    place.delete(jobs[0].spec.name)
    with pytest.raises(ShardError, match="has ended"):
        write_shard(jobs[0])
    assert jobs[0].spec.name not in place.names()


def test_places_that_cannot_be_built_at(recordings, options, place, tmp_path, capsys):
    place.write("something else", b"")
    with pytest.raises(ShardError, match="not empty, and not a shard set"):
        build(recordings, place.url, options, workers=1)
    with faulty(tmp_path) as server, pytest.raises(StorageError, match="over http; use the store behind it"):
        build(recordings, f"{server.url}/set", options, workers=1)
    arguments = ["--data_root", recordings, "--output_folder", "s3://nowhere/x", "--workers", 1]
    assert_refused(capsys, arguments, "s3://nowhere/x", "no such bucket")


def test_verify_and_inspect_at_a_url(shard_set, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    with nginx(shard_set.parent, tmp_path / "run") as url:
        location = f"{url}/{shard_set.name}"
        aar_dist(["verify", location])
        assert "all hashes match" in capsys.readouterr().out
        aar_dist(["inspect", location, "--json"])
        assert json.loads(capsys.readouterr().out)["identity"] == summarize(shard_set).identity
        with pytest.raises(SystemExit):
            aar_dist(["verify", f"{url}/nothing"])
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"{url}/nothing/dataset.json: not there" in error


@pytest.mark.parametrize(
    ("fault", "words"),
    [("wrong", "damaged"), ("short", "bytes, expected"), ("404", "not there"), ("huge", "bytes, expected")],
)
def test_damage_at_a_url_is_named(shard_set, fault, words):
    name = sorted(p.name for p in shard_set.glob("*.tar"))[1]
    with faulty(shard_set) as server:
        server.always[name] = fault
        with pytest.raises(ShardError, match=rf"1 of 10 shards: {name}: .*{words}"):
            verify_shards(server.url)
        del server.always[name]
        server.faults[name] = ["wrong"]
        assert "all hashes match" in verify_shards(server.url), "what was damaged on the way is read again"
