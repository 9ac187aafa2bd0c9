"""A stream from a server equals the stream from the folder behind it, whatever the server does in between."""

import hashlib
import itertools
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fault_proxy import fault_proxy
from servers import nginx, object_store

from aar_dist.base.cache import Cache
from aar_dist.base.errors import ConfigError, ShardError
from aar_dist.base.remote import Remote
from aar_dist.evaluation.audit_command import main as audit
from aar_dist.evaluation.exporting.command import main as export
from aar_dist.shards.format import INFO, LABELS, MANIFEST
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import open_stream
from aar_dist.stream.windows import WindowConfig, open_windows, window_stream


@pytest.fixture(scope="module")
def data(shard_set) -> DataConfig:
    return DataConfig(shards=[str(shard_set)], segment_duration=1.0, lanes=16)


@pytest.fixture(scope="module")
def served(shard_set, tmp_path_factory):
    with nginx(shard_set, tmp_path_factory.mktemp("nginx")) as url:
        yield url


@pytest.fixture(scope="module")
def local(data):
    return batches(data)


@pytest.fixture
def proxy(served):
    with fault_proxy(served, stall_s=0.5, gone_s=1.5) as proxy:
        yield proxy


def batches(data, n=6, split="train", **options):
    with open_stream(data, split, **options) as stream:
        return list(itertools.islice(stream.batches(1000, 64, 64), n))


def same(ours, theirs) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(ours, theirs, strict=True)
        for name in ("values", "valid", "key")
    )


@pytest.fixture
def remote(data, proxy, tmp_path):
    return replace(data, shards=[proxy.url], cache=str(tmp_path / "cache"))


@pytest.mark.parametrize("faults", [[], ["500", "503"], ["cut"], ["short"], ["less"], ["stall"], ["wrong"], ["gone"]],
                         ids=lambda faults: "-".join(faults) or "none")  # fmt: skip
def test_batches_through_a_faulty_server_equal_local_ones(remote, proxy, shard_set, local, faults):
    names = [INFO, MANIFEST, *sorted(path.name for path in shard_set.glob("*-train-*.tar"))]
    if faults == ["gone"]:
        names = names[2:3]
    if faults in (["wrong"], ["less"]):  # nothing tells the hash or the length of the first file
        names = names[1:]
    proxy.faults.update({name: list(faults) for name in names})
    assert same(batches(remote), local)
    assert proxy.taken == [] if not faults else len(proxy.taken) >= len(faults)


def test_what_was_read_once_needs_no_server(remote, proxy, local):
    batches(remote)
    asked = len(proxy.requests)
    assert same(batches(remote), local)
    assert set(proxy.requests[asked:]) == {INFO}, "only the small file that tells the hashes of all others"


def test_all_is_fetched_ahead_of_need(remote, proxy, shard_set):
    with open_stream(remote, "train") as stream:
        next(stream.batches(0, 64, 64))
        wanted = {shard.name for shard in stream.source.shards}
        deadline = time.monotonic() + 10
        while not wanted <= set(proxy.requests) and time.monotonic() < deadline:
            time.sleep(0.02)
    assert sorted(name for name in proxy.requests if name.endswith(".tar")) == sorted(wanted), "each once"


def test_a_closed_stream_reads_no_further_though_its_batches_are_kept(remote, proxy):
    with open_stream(remote, "train") as stream:
        kept = stream.batches(0, 64, 64)
        next(kept)
    deadline = time.monotonic() + 10
    while any(thread.name.startswith("scout") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    kept.close()


def test_a_hash_that_stays_wrong_is_one_named_error(remote, proxy, shard_set):
    bad = sorted(shard_set.glob("*-train-*.tar"))[1].name
    proxy.always[bad] = "wrong"
    with pytest.raises(ShardError, match=rf"^{proxy.url}/{bad}: sha256 \w{{64}}, expected \w{{64}}: wrong 3 times"):
        batches(remote, n=200)
    deadline = time.monotonic() + 10  # downloads of other shards come to their end
    while list(Path(remote.cache).glob("*/*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_cache_smaller_than_the_set_gives_the_same_batches(remote, shard_set, data):
    sizes = [path.stat().st_size for path in shard_set.glob("*-train-*.tar")]
    limit = sum(sizes) - min(sizes) // 2
    lanes = {"lanes": 2, "shuffle_block": 64}
    expected = batches(replace(data, **lanes), n=150)
    found = batches(replace(remote, **lanes, cache_limit=str(limit)), n=150)
    assert same(found, expected)
    assert Cache.of(remote.cache).used() <= limit


def test_a_limit_below_what_a_batch_needs_names_the_minimum(remote):
    with pytest.raises(ConfigError, match=r"data.cache_limit is 900.0 kB .* set it to at least \d+, or lower"):
        batches(replace(remote, cache_limit="900kB"))


@pytest.mark.parametrize("limit", ["much", "-1GB", "1 furlong"])
def test_a_limit_that_is_no_size(limit):
    with pytest.raises(ConfigError, match=r"data\.cache_limit: "):
        DataConfig(shards=["x"], cache_limit=limit)


def test_validation_and_labelled_windows_too(remote, data, proxy):
    for split in (data, remote):
        assert LABELS not in proxy.requests
        source, table = open_windows(split, WindowConfig())
        with window_stream(source, table, split, shuffle=True) as stream:
            found = [next(stream.batches(0, 64, 64))]
        with open_stream(split, "val") as stream:
            found += [batch for batch, _ in stream.evaluation(256, 256)]
        if split is data:
            expected = found
    assert same(found, expected)
    assert all(torch.equal(a.label, b.label) for a, b in zip(found[:1], expected[:1], strict=True))


def test_a_bucket(data, shard_set, local, tmp_path):
    with object_store("bucket"):
        url = "s3://bucket/some/set"
        for path in shard_set.iterdir():
            if path.is_file():
                Remote(url).write(path.name, path)
        assert same(batches(replace(data, shards=[url], cache=str(tmp_path))), local)


RANKS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from aar_dist.stream.config import DataConfig
from test_remote_stream import digest
url, cache, limit = sys.argv[1:]
data = DataConfig(shards=[url], segment_duration=1.0, lanes=2, shuffle_block=64, cache=cache, cache_limit=limit)
with ThreadPoolExecutor(2) as ranks:
    print(*ranks.map(lambda rank: digest(data, rank), range(2)))
"""


def digest(data, rank):
    """Of all that a rank of two reads."""
    found = hashlib.sha256()
    with open_stream(data, "train", rank, 2) as stream:
        for batch in itertools.islice(stream.batches(0, 64, 32), 300):
            found.update(batch.values.numpy().tobytes())
    return found.hexdigest()


def test_two_runs_of_two_ranks_share_a_cache_that_is_too_small_for_the_set(served, shard_set, tmp_path):
    """Equal to what a local set gives; the cache is looked at while they run."""
    local = DataConfig(shards=[str(shard_set)], segment_duration=1.0, lanes=2, shuffle_block=64)
    expected = [digest(local, rank) for rank in range(2)]
    limit = sum(path.stat().st_size for path in shard_set.glob("*-train-*.tar")) - 400_000
    path = os.pathsep.join(p for p in (*map(str, Path(__file__).parents[:2]), *sys.path) if p)
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, served, tmp_path, str(limit)],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"LOCAL_WORLD_SIZE": "2", "PYTHONPATH": path},
        )
        for _ in range(2)
    ]  # fmt: skip
    most, cache = 0, Cache(tmp_path, limit)
    while any(run.poll() is None for run in runs):
        with cache._alone():  # nobody makes room or takes it meanwhile
            most = max(most, sum({entry.path.name[:64]: entry.n_bytes for entry in cache.entries()}.values()))
        time.sleep(0.005)
    said = [run.communicate()[0].split() for run in runs]
    assert said == [expected] * 2
    assert len(set(expected)) == 2
    assert 0 < most <= limit


def test_the_other_doors_take_a_url(served, shard_set, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AAR_DIST_CACHE", str(tmp_path / "cache"))
    for name, place in (("remote", served), ("local", shard_set)):
        flags = ["--segment_duration", "1", "--max_window_length", "50", "--oversampling_factor", "0.1"]
        export(["npy", str(place), str(tmp_path / name), *flags])
    for split in ("train", "val"):
        ours, theirs = (np.load(tmp_path / name / f"X_{split}.npy") for name in ("remote", "local"))
        assert np.array_equal(ours, theirs, equal_nan=True)
    capsys.readouterr()
    audit([served])
    told = capsys.readouterr().out
    audit([str(shard_set)])
    assert told == capsys.readouterr().out


def test_a_set_of_this_machine_is_neither_copied_nor_removed(data, shard_set, tmp_path, monkeypatch):
    monkeypatch.setenv("AAR_DIST_CACHE", str(tmp_path / "cache"))
    before = sorted(os.listdir(shard_set))
    batches(data)
    assert not (tmp_path / "cache").exists()
    assert sorted(os.listdir(shard_set)) == before


def test_remote_samples_become_resident_through_a_cache_that_holds_few_shards(remote, proxy, shard_set, local):
    tars = sorted(shard_set.glob("*-train-*.tar"))
    proxy.faults[tars[0].name] = ["500"]
    limit = 2 * max(tar.stat().st_size for tar in tars)
    assert limit < sum(tar.stat().st_size for tar in tars)
    assert same(batches(replace(remote, resident="always", cache_limit=str(limit))), local)
    fetched = [name for name in proxy.requests if name.endswith(".tar")]
    assert sorted({*fetched}) == [tar.name for tar in tars]
