"""Publishing by rename, atomic small files, full disks."""

import errno
import hashlib
import json

import pytest

from aar_dist.base import storage
from aar_dist.base.errors import StorageError


def test_sha256_reads_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "CHUNK_BYTES", 7)
    data = bytes(range(256)) * 3
    (tmp_path / "f").write_bytes(data)
    assert storage.sha256(tmp_path / "f") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_publish_never_goes_over_an_existing_name(tmp_path, kind):
    def make(path, text):
        if kind == "file":
            path.write_text(text)
        else:
            path.mkdir()
            (path / "x").write_text(text)
        return path

    final = tmp_path / "final"
    storage.publish(make(storage.staging_name(final), "first"), final)
    second = make(storage.staging_name(final), "second")
    with pytest.raises(FileExistsError):
        storage.publish(second, final)
    content = final if kind == "file" else final / "x"
    assert content.read_text() == "first"
    assert storage.sweep(tmp_path) == [second]
    assert [p.name for p in tmp_path.iterdir()] == ["final"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = storage.write_json(tmp_path / "a.json", {"n": 1})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        storage.write_json(path, {"n": 2})
    assert json.loads(path.read_text()) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_hash_tree_and_damage(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"abc")
    hashes = storage.hash_tree(tmp_path)
    assert list(hashes) == ["d/a"]
    assert storage.damage(tmp_path, hashes) is None
    (tmp_path / "d" / "a").write_bytes(b"abd")
    assert "damaged" in (storage.damage(tmp_path, hashes) or "")
    (tmp_path / "d" / "a").unlink()
    assert "missing" in (storage.damage(tmp_path, hashes) or "")
