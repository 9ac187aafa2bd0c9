"""Two attempts at one shard: Ray begins a second one where it lost sight of the first, which may live on."""

import shutil
from dataclasses import replace

import pytest
from test_build import hashes

import aar_dist.shards.build as module
from aar_dist.base.errors import StorageError
from aar_dist.shards.build import BuildOptions, build
from aar_dist.shards.tar import TarWriter
from aar_dist.shards.verify import verify_shards
from aar_dist.shards.writer import write_shard

OPTIONS = BuildOptions(datasets=("slow",), longest_segment_s=1.0, shard_bytes=30_000)


@pytest.fixture
def jobs(recordings, tmp_path, monkeypatch):
    """The jobs of a build, and the folder that it made by one attempt at each."""
    seen = []
    monkeypatch.setattr(module, "write_shard", lambda job: seen.append(job) or write_shard(job))
    return seen, build(recordings, tmp_path / "once", OPTIONS, workers=1).folder


def while_writing(monkeypatch, act) -> None:
    """Calls ``act`` once, when the next shard is all but written."""
    finish = TarWriter.finish

    def finish_late(tar):
        monkeypatch.setattr(TarWriter, "finish", finish)
        act()
        finish(tar)

    monkeypatch.setattr(TarWriter, "finish", finish_late)


def test_a_second_attempt_that_overtakes_the_first(jobs, recordings, tmp_path, monkeypatch):
    def twice(job):
        while_writing(monkeypatch, lambda: write_shard(job))
        return write_shard(job)

    monkeypatch.setattr(module, "write_shard", twice)
    build(recordings, tmp_path / "twice", OPTIONS, workers=1)
    assert hashes(tmp_path / "twice") == hashes(jobs[1])


def test_an_attempt_that_ends_after_the_build_leaves_nothing(jobs, tmp_path, monkeypatch):
    of_build, once = jobs
    late = replace(of_build[0], folder=tmp_path / "set")
    shutil.copytree(once, late.folder)
    before = hashes(late.folder)
    (late.folder / ".build").mkdir()
    while_writing(monkeypatch, lambda: (late.folder / ".build").rmdir())
    with pytest.raises(StorageError, match="No such file"):
        write_shard(late)
    assert hashes(late.folder) == before
    assert "all hashes match" in verify_shards(late.folder)
