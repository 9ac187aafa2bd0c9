"""Stores made to do harm: one line, nothing written beside them, nothing run."""

import json
import os
import pickle
import shutil

import pytest
from servers import faulty
from test_registry import publish

from aar_dist.base.errors import CheckpointError
from aar_dist.base.storage import sha256
from aar_dist.cli import main as aar_dist
from aar_dist.store.checkpoint import WEIGHTS, verified
from aar_dist.store.manifest import MOST_TEXT, as_bytes, parsed
from aar_dist.store.registry import Store, resolve

GOOD = "0" * 64


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("AAR_DIST_CACHE", str(tmp_path / "cache"))
    publish(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def version(store):
    return store / "models" / "aar" / "1"


def forge(version, /, **changed):
    file = version / "manifest.json"
    told = json.loads(file.read_text())
    for key, value in changed.items():
        told[key] = told[key] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(told))


FORGED = [
    ({"files": {"../../../../out": GOOD}}, r"files names '\.\./\.\./\.\./\.\./out', which is no plain file"),
    ({"files": {"/etc/passwd": GOOD}}, "files names '/etc/passwd'"),
    ({"files": {".hidden": GOOD}}, "files names '.hidden'"),
    ({"files": {"a\nb": GOOD}}, "no plain file"),
    ({"files": {"a\\b": GOOD}}, "no plain file"),
    ({"files": {"manifest.json": GOOD}}, "no plain file"),
    ({"files": {WEIGHTS: "../" + GOOD}}, "expected a sha256"),
    ({"files": {WEIGHTS: None}}, "expected a sha256"),
    ({"files": [WEIGHTS]}, "files is no list of names and hashes"),
    ({"files": {f"f{i}": GOOD for i in range(200)}}, "files is no list of names and hashes"),
    ({"bytes": {WEIGHTS: -1}}, "expected a number of bytes"),
    ({"bytes": {"card.md": MOST_TEXT + 1}}, "expected at most"),
    ({"bytes": 7}, "bytes is no list"),
    ({"name": ".."}, r"name is '\.\.'"),
    ({"name": "a/b"}, "name is 'a/b'"),
    ({"name": 7}, "name is 7"),
    ({"version": 0}, "version is 0"),
    ({"version": True}, "version is True"),
    ({"name": "b"}, "tells of store://b@1"),
    ({"version": 2}, "tells of store://aar@2"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "words"), FORGED)
def test_a_hostile_manifest_is_refused_here_and_over_http(store, version, tmp_path, changed, words):
    forge(version, **changed)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=words) as caught:
        resolve("store://aar@1", store)
    assert len(str(caught.value).splitlines()) == 1
    with faulty(store) as server, pytest.raises(CheckpointError, match=words):
        resolve("store://aar@1", server.url)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", [b"[1]", b"7", b"{", b"[" * 100_000, b"\xff", b"null"])
def test_what_is_no_manifest(text):
    with pytest.raises(CheckpointError, match=r"^x is no stored model: manifest\.json: "):
        parsed(text, "x/manifest.json")


def test_a_link_out_of_a_version_is_refused(version, tmp_path):
    shutil.move(version / "card.md", tmp_path / "private")
    os.symlink(tmp_path / "private", version / "card.md")
    with pytest.raises(CheckpointError, match=r"card\.md is a link, expected a plain file"):
        verified(version)


class Harm:
    def __reduce__(self):
        return (os.system, ("touch harm",))


@pytest.mark.parametrize("kind", ["pickle", "huge header", "half", "int8"])
def test_weights_that_are_no_plain_numbers(version, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    file = version / WEIGHTS
    header = json.dumps({"w": {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    file.write_bytes(
        {
            "pickle": pickle.dumps(Harm()),
            "huge header": (10**15).to_bytes(8, "little") + b"{}",
            "half": file.read_bytes()[: file.stat().st_size // 2],
            "int8": len(header).to_bytes(8, "little") + header + bytes(4),
        }[kind]
    )
    forge(version, files={WEIGHTS: sha256(file)})
    words = "w holds I8, expected F32" if kind == "int8" else "is no safetensors"
    with pytest.raises(CheckpointError, match=words) as caught:
        verified(version)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "holds a list"),
        ("a: [", "cannot be read"),
        ("[" * 5000, "cannot be read"),
        ("a: 1", "names no model"),
        ("model: 1\nobjective: {}\ndata: {max_window_length: 1}", "names no model"),
    ],
)
def test_a_configuration_that_is_none(version, text, words):
    file = version / "config.yaml"
    file.write_text(text)
    forge(version, files={"config.yaml": sha256(file)})
    with pytest.raises(CheckpointError, match=words) as caught:
        verified(version).objective()
    assert len(str(caught.value).splitlines()) == 1


def test_a_server_that_sends_without_end(store, version):
    with faulty(store) as server:
        server.always["models/aar/1/manifest.json"] = "huge"
        with pytest.raises(Exception, match=r"10\.0 TB, expected at most 20\.0 MB"):
            resolve("store://aar@1", server.url)


def test_a_hostile_version_is_pulled_nowhere(store, version, tmp_path, capsys):
    forge(version, files={"../out": GOOD})
    with pytest.raises(SystemExit):
        aar_dist(["store", "pull", "aar@1", str(tmp_path / "here"), "--store", str(store)])
    assert "no plain file" in capsys.readouterr().err
    assert not (tmp_path / "here").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_a_manifest_survives_writing_and_reading(store):
    told = Store(store).look("aar")[1]
    assert parsed(as_bytes(told), "x") == told
