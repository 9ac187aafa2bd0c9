"""Reading and writing at a URL while the server fails on purpose."""

import hashlib
import os
import subprocess
import sys
import threading

import pytest
from servers import faulty, object_store

from aar_dist.base import transport
from aar_dist.base.errors import StorageError
from aar_dist.base.remote import Missing, Patience, Refused, Remote, is_url

DATA = os.urandom(3_000_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
SHORT = Patience(read_s=0.4, fetch_s=0.4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "set").mkdir()
    (folder / "set" / "a.tar").write_bytes(DATA)
    (folder / "set" / "small one.json").write_bytes(b"{}")
    return folder


@pytest.fixture
def server(folder):
    with faulty(folder) as server:
        yield server


@pytest.fixture(scope="module")
def bucket():
    with object_store("bucket"):
        yield "s3://bucket/some/set"


@pytest.mark.parametrize(
    ("location", "expected"),
    [("s3://b/x", True), ("https://h/x", True), ("abfs+x://b", True), ("store://name@1", False), ("a/b", False),
     ("/a", False), ("c:/x", False)],
)  # fmt: skip
def test_what_is_a_url(location, expected):
    assert is_url(location) is expected


FAULTS = [
    [], ["500"], ["503", "429", "408"], ["cut"], ["cut", "cut", "cut", "500"], ["short"], ["long"], ["short", "cut"],
    ["cut", "replaced"], ["cut", "no_range"], ["huge"], ["stall"],
]  # fmt: skip


@pytest.mark.parametrize("faults", FAULTS, ids=lambda faults: "-".join(faults) or "none")
def test_faults_that_pass_are_ridden_out(server, tmp_path, faults, monkeypatch):
    monkeypatch.setattr(transport, "STALL_S", 0.5)
    transport_of_new_stall = Remote(f"{server.url}/set?{'-'.join(faults)}")  # another URL, so another client
    server.stall_s = 2.0
    server.faults["set/a.tar"] = list(faults)
    assert transport_of_new_stall.fetch("a.tar", tmp_path / "a", len(DATA)) == DIGEST
    assert (tmp_path / "a").read_bytes() == DATA


def test_a_cut_body_is_read_on_from_where_it_broke(server, tmp_path):
    server.faults["set/a.tar"] = ["cut"]
    Remote(f"{server.url}/set").fetch("a.tar", tmp_path / "a", len(DATA))
    ranges = [asked for _, _, asked, _ in server.requests]
    assert ranges[0] is None
    assert int(ranges[1].removeprefix("bytes=").rstrip("-")) > 0


def test_wrong_bytes_are_told_by_the_hash(server, tmp_path):
    server.faults["set/a.tar"] = ["wrong"]
    assert (
        Remote(f"{server.url}/set").fetch("a.tar", tmp_path / "a", len(DATA)) == hashlib.sha256(DATA[::-1]).hexdigest()
    )


def test_a_server_that_is_gone_for_a_while(server, tmp_path):
    server.stop()
    threading.Timer(1.0, server.start).start()
    assert Remote(f"{server.url}/set").fetch("a.tar", tmp_path / "a", len(DATA)) == DIGEST


@pytest.mark.parametrize(("fault", "words"), [("500", "answered 500"), ("gone", "refused"), ("huge", "10000000000000")])
def test_faults_that_stay_are_one_line(server, tmp_path, fault, words):
    server.always["set/a.tar"] = fault
    if fault == "gone":
        server.stop()
    with pytest.raises(StorageError, match=words) as caught:
        Remote(f"{server.url}/set", SHORT).fetch("a.tar", tmp_path / "a", len(DATA))
    assert "\n" not in str(caught.value)
    assert f"{server.url}/set/a.tar" in str(caught.value)


def test_another_size_for_good_is_told_soon(server, tmp_path):
    with pytest.raises(Refused, match=rf"has {len(DATA)} bytes, expected 7"):
        Remote(f"{server.url}/set").fetch("a.tar", tmp_path / "a", 7)


def test_missing_is_not_refused(server):
    remote = Remote(f"{server.url}/set")
    assert remote.exists("small one.json")
    assert not remote.exists("b.tar")
    with pytest.raises(Missing, match=r"/set/b\.tar: not there$"):
        remote.read("b.tar")
    server.always["set/a.tar"] = "403"
    with pytest.raises(Refused, match="answered 403"):
        remote.exists("a.tar")


def test_a_small_file_has_a_limit(server):
    remote = Remote(f"{server.url}/set")
    assert remote.read("small one.json", limit=2) == b"{}"
    with pytest.raises(Refused, match=r"has 3\.0 MB, expected at most 1\.0 kB"):
        remote.read("a.tar", limit=1000)


@pytest.mark.parametrize("name", ["../a.tar", "/a.tar", "", "x//y", "x/../../y", "a\\b", "a\nb", "."])
def test_names_stay_in_the_folder(server, name, tmp_path):
    for act in (Remote(f"{server.url}/set").read, lambda n: Remote(f"{server.url}/set").fetch(n, tmp_path / "x", 1)):
        with pytest.raises(Refused, match="is no name of a file in this folder"):
            act(name)
    assert not server.requests


def test_passwords_and_signatures_are_used_and_never_shown(server, tmp_path):
    remote = Remote(f"http://me:p%40ss@127.0.0.1:{server.port}/set?signature=abc", SHORT)
    assert remote.read("small one.json") == b"{}"
    assert server.requests[-1][3] == "Basic bWU6cEBzcw=="
    server.always["set/a.tar"] = "500"
    errors = [str(remote), repr(remote)]
    for name in ("a.tar", "missing", "../x"):
        with pytest.raises(StorageError) as caught:
            remote.fetch(name, tmp_path / "a", 1)
        errors.append(str(caught.value) + str(caught.value.__cause__))
    assert not [e for e in errors if any(secret in e for secret in ("p%40ss", "p@ss", "abc", "me:"))]


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/x", "s3://bucket/x?secret=1"])
def test_secrets_in_a_bucket_url_are_refused_unseen(url):
    with pytest.raises(Refused, match="set them in the environment") as caught:
        Remote(url).read("a")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nosuch://host/x", "nosuch:// is no scheme that is known here"),
        ("adlfs+x://h/x", "no scheme"),
        ("http://[::1/x", "cannot be read"),
        ("http://host:99999/x", "invalid port"),
        ("https:///x", "names no host"),
        ("ftp://127.0.0.1:9/x", "refused"),
    ],
)
def test_a_url_that_cannot_be_used(url, words):
    with pytest.raises(StorageError, match=words):
        Remote(url, SHORT).read("a")


def test_http_is_read_only(server):
    remote = Remote(f"{server.url}/set")
    for act in (lambda: remote.write("x", b""), lambda: remote.delete("x"), remote.names):
        with pytest.raises(Refused, match="over http"):
            act()


@pytest.mark.parametrize("scheme", ["s3", "memory"])
def test_a_store_of_objects(bucket, tmp_path, scheme):
    remote = Remote(bucket.replace("s3:", f"{scheme}:"))
    assert remote.names() == []
    (tmp_path / "a").write_bytes(DATA)
    assert remote.write("a.tar", tmp_path / "a")
    assert remote.write(".build/plan", b"one", only_if_new=True)
    assert remote.write(".build/plan", b"one", only_if_new=True), "the same bytes: an attempt of ours, or as good"
    assert not remote.write(".build/plan", b"two", only_if_new=True)
    assert remote.names() == [".build/plan", "a.tar"]
    assert remote.names(".build/") == [".build/plan"]
    assert remote.fetch("a.tar", tmp_path / "b", len(DATA)) == DIGEST
    assert (tmp_path / "b").read_bytes() == DATA
    remote.delete("a.tar")
    remote.delete("a.tar")
    assert not remote.exists("a.tar")
    assert remote.read(".build/plan") == b"one"
    remote.delete(".build/plan")


class Busy:
    """Another's write of ``claim`` is at work, then done: S3 answers 409 meanwhile, which is told as ``Exists``."""

    def __init__(self):
        self.asked = 0

    def put(self, name, data, *, only_if_new):
        raise transport.Exists(name)

    def size(self, name):
        self.asked += 1
        if self.asked < 3:
            raise Missing("not there")
        return 3

    def open(self, name, start):
        return transport.Body(size=3, tag=None, pieces=iter([b"one"]))


@pytest.mark.parametrize(("data", "ours"), [(b"one", True), (b"two", False), (b"longer", False)])
def test_a_name_that_another_is_writing_is_asked_for_again(monkeypatch, data, ours):
    busy = Busy()
    monkeypatch.setattr("aar_dist.base.remote._transport", lambda url, pid: busy)
    assert Remote("s3://bucket/x").write("claim", data, only_if_new=True) is ours
    assert busy.asked == 3


def test_a_bucket_that_is_not_there(bucket):
    for act in (Remote("s3://nowhere/x").names, lambda: Remote("s3://nowhere/x").write("a", b"x")):
        with pytest.raises(Refused, match=r"s3://nowhere/x.*: there is no such bucket"):
            act()


def test_keys_of_the_aws_folder_are_found(bucket, tmp_path, monkeypatch):
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = k\naws_secret_access_key = s%3\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    remote = Remote("s3://bucket/profile")  # another URL, so another client
    assert remote.write("a", b"x")


def test_a_forked_child_is_told_not_to_wait_for_ever(server):
    code = f"""
import os
from aar_dist.base.remote import Remote, Refused
remote = Remote("{server.url}/set")
assert remote.read("small one.json") == b"{{}}"
child = os.fork()
if child == 0:
    try:
        remote.read("small one.json")
    except Refused as error:
        os._exit(7 if "spawn" in str(error) else 1)
    os._exit(1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 7
