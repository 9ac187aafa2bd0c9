"""A store in a bucket and over http: killed publishers, damaged files, one download for all."""

import hashlib
import json
import shutil
import threading

import pytest
import torch
from servers import faulty, object_store
from test_registry import publish

from aar_dist.base.cache import Cache
from aar_dist.base.errors import CheckpointError, StorageError
from aar_dist.base.object_store import ObjectStore
from aar_dist.base.remote import Remote
from aar_dist.store import bucket as bucket_shelf
from aar_dist.store import index
from aar_dist.store.checkpoint import FILES, WEIGHTS
from aar_dist.store.registry import Store, resolve


class Killed(BaseException):
    """What comes instead of the next step."""


@pytest.fixture(scope="module")
def server():
    with object_store("bucket"):
        yield


@pytest.fixture
def where(server, request, tmp_path, monkeypatch) -> str:
    """A new store, and a new cache for this machine."""
    monkeypatch.setenv("AAR_DIST_CACHE", str(tmp_path / "cache"))
    return f"s3://bucket/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


def flip(data: bytes) -> bytes:
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_a_version_in_a_bucket_is_what_was_published(where, tmp_path):
    weights = {"w": torch.arange(5.0)}
    made = publish(where, weights=weights)
    assert (made.reference, made.where) == ("store://aar@1", f"{where}/models/aar/1")
    for reference, store in (("store://aar@latest", where), (f"{where}/models/aar/1", None)):
        read = resolve(reference, store)
        assert torch.equal(read.weights()["w"], weights["w"])
        assert read.manifest == made.manifest
        assert sorted(p.name for p in read.path.iterdir()) == sorted([*FILES, "manifest.json"])
        assert resolve(str(shutil.copytree(read.path, tmp_path / f"copy {len(reference)}"))).manifest == made.manifest


def test_a_number_that_was_not_there_is_named(where):
    publish(where)
    for reference, words in (("store://aar@7", "has no version 7 of 'aar'; it has 1"), ("store://b@1", "no model 'b'")):
        with pytest.raises(CheckpointError, match=words):
            resolve(reference, where)
    with pytest.raises(CheckpointError, match="expected the URL of a version"):
        resolve(f"{where}/models/aar/latest")


WRITES = 6
"""Claim, four files, manifest."""


@pytest.mark.parametrize("at", range(WRITES + 1))
def test_a_publisher_that_is_killed_anywhere_leaves_nothing_to_see(where, monkeypatch, at):
    publish(where, "other")  # so that the names are told of
    real, done = Remote.write, []

    def write(self, name, data, **options):
        if len(done) == at:
            raise Killed
        done.append(name)
        return real(self, name, data, **options)

    monkeypatch.setattr(Remote, "write", write)
    with pytest.raises(Killed):
        publish(where)
    monkeypatch.setattr(Remote, "write", real)
    stands = at == WRITES
    store = Store(where)
    assert store.versions("aar") == ([1] if stands else [])
    monkeypatch.setattr(bucket_shelf, "has_ended", lambda told: True)
    made = publish(where)
    assert made.version == (1 if at == 0 else 2)
    assert store.versions("aar") == ([1, 2] if stands else [made.version])
    left = Remote(where).names("models/aar/1/")
    assert len(left) == (6 if stands or at == 0 else 2), left
    if not stands and at:
        with pytest.raises(CheckpointError, match=r"store://aar@1 was removed on .* \(its publisher was ended\)"):
            resolve("store://aar@1", where)


def test_a_publisher_that_was_taken_for_gone_begins_again(where, monkeypatch):
    real, swept = Remote.write, []

    def write(self, name, data, **options):
        if name == "models/aar/1/manifest.json" and not swept:
            swept.append(True)
            monkeypatch.setattr(bucket_shelf, "has_ended", lambda told: True)
            publish(where)
            monkeypatch.setattr(bucket_shelf, "has_ended", lambda told: False)
        return real(self, name, data, **options)

    monkeypatch.setattr(Remote, "write", write)
    assert publish(where).version == 3
    assert Store(where).versions("aar") == [2, 3]
    assert Remote(where).names("models/aar/1/") == ["models/aar/1/claim.json", "models/aar/1/manifest.json"]


def test_a_publisher_at_work_is_left_alone(where):
    Remote(where).write("models/aar/1/claim.json", json.dumps({"machine": "x", "at": "2999-01-01T00:00:00Z"}).encode())
    assert publish(where).version == 2
    assert Store(where).versions("aar") == [2]
    assert not Remote(where).exists("models/aar/1/manifest.json")


def test_many_publishers_share_no_number(where):
    made = []
    writers = [threading.Thread(target=lambda n=n: made.append(publish(where, str(n % 2)))) for n in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(made) == 6
    assert all(Store(where).versions(name) == [1, 2, 3] for name in ("0", "1"))
    assert index.names(Remote(where)) == Store(where).names() == ["0", "1"]


def test_a_server_that_writes_over_is_refused_before_anything_is_written(where, monkeypatch):
    real = ObjectStore.put
    monkeypatch.setattr(
        ObjectStore, "put", lambda self, name, data, only_if_new: real(self, name, data, only_if_new=False)
    )
    with pytest.raises(StorageError, match=r"writes over a file .* \(If-None-Match\)"):
        Store(where).shelf.check("aar")
    assert Remote(where).names() == []


def test_a_scheme_without_conditions_is_read_only(where):
    with pytest.raises(StorageError, match="memory:// cannot write a file only if it is new"):
        publish("memory://shared/store")


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder with store://aar@1 and @2, over http."""
    monkeypatch.setenv("AAR_DIST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "store").mkdir()
    publish(tmp_path / "store")
    publish(tmp_path / "store")
    with faulty(tmp_path / "store") as server:
        yield server


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_in_the_store_is_a_named_error(served, name):
    file = served.folder / "models" / "aar" / "2" / name
    file.write_bytes(flip(file.read_bytes()))
    with pytest.raises(
        CheckpointError, match=rf"/models/aar/2/{name}: sha256 .*, expected .* damaged in the store"
    ) as caught:
        resolve("store://aar@latest", served.url)
    assert "\n" not in str(caught.value)
    assert resolve("store://aar@1", served.url).version == 1


def test_a_flipped_byte_on_the_way_is_fetched_again(served):
    served.faults[f"models/aar/2/{WEIGHTS}"] = ["wrong"]
    assert resolve("store://aar@2", served.url).weights()


def test_a_flipped_byte_in_the_cache_is_fetched_again_or_named(served):
    first = resolve("store://aar@2", served.url)
    blob = (first.path / WEIGHTS).resolve()
    whole = blob.read_bytes()
    blob.write_bytes(flip(whole))
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS} is damaged: sha256"):  # it is in use: nothing can be done
        resolve("store://aar@2", served.url)
    del first
    again = resolve("store://aar@2", served.url)
    assert (again.path / WEIGHTS).read_bytes() == whole


def test_a_file_that_is_cut_short_or_gone(served):
    file = served.folder / "models" / "aar" / "2" / WEIGHTS
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(
        StorageError, match=rf"/models/aar/2/{WEIGHTS}: has {len(data) - 1} bytes, expected {len(data)}"
    ):
        resolve("store://aar@2", served.url)
    file.unlink()
    with pytest.raises(CheckpointError, match=rf"/models/aar/2/{WEIGHTS} is missing"):
        resolve("store://aar@2", served.url)


def test_readers_over_http_find_what_is_not_told_of(served):
    """The files that tell of versions are late, set back, or gone."""
    store, folder = Store(served.url), served.folder
    publish(folder)
    (folder / "models" / "aar" / "newest.json").write_text('{"version": 1}')
    assert store.get("aar").version == 3
    (folder / "models" / "aar" / "newest.json").write_text('{"version": 1000000000000000}')
    assert store.versions("aar") == [1, 2, 3]
    for file in ("models/aar/newest.json", "models.json"):
        (folder / file).unlink()
    assert store.get("aar").version == 3
    assert store.names() == []
    publish(folder, "b")
    assert store.names() == ["aar", "b"]


def test_a_web_server_that_refuses_says_so(served):
    for name in ("models/aar/newest.json", *(f"models/aar/1/{file}" for file in ("manifest.json", "claim.json"))):
        served.always[name] = "403"
    with pytest.raises(StorageError, match="the server answered 403"):
        Store(served.url).get("aar")
    for act in (lambda: publish(served.url), lambda: Store(served.url).shelf.check("aar")):
        with pytest.raises(StorageError, match="nothing can be written over http"):
            act()


class Portal(dict):
    """Faults of a server that answers whatever it is asked for: a page that wants a login."""

    def __contains__(self, name):
        return True

    def __getitem__(self, name):
        return "200"


def test_a_web_server_that_has_everything_is_no_store(served):
    served.always = Portal()
    with pytest.raises(StorageError, match=r"/models/aar/0/manifest\.json: answered, though no store has it"):
        Store(served.url).get("aar")


def test_passwords_in_the_address_of_a_store_are_never_shown(served):
    secret = f"http://me:s3cret@127.0.0.1:{served.port}"
    said = [str(Store(secret)), resolve("store://aar@1", secret).where]
    for reference in ("store://aar@9", "store://b@1"):
        with pytest.raises(CheckpointError) as caught:
            resolve(reference, secret)
        said.append(str(caught.value))
    assert served.requests[-1][3] is not None
    assert not [text for text in said if "s3cret" in text or "me:" in text]


def test_two_that_pull_at_once_download_once(served, tmp_path):
    pulled = []
    stores = [Store(served.url, Cache(tmp_path / "shared", 10**9)) for _ in range(4)]
    pulls = [threading.Thread(target=lambda store=store: pulled.append(store.get("aar", "2"))) for store in stores]
    for pull in pulls:
        pull.start()
    for pull in pulls:
        pull.join()
    assert len({one.path for one in pulled}) == 1
    assert len(pulled) == 4
    asked = [name for method, name, *_ in served.requests if method == "GET" and name.endswith(WEIGHTS)]
    assert asked == [f"models/aar/2/{WEIGHTS}"]


def test_what_is_in_use_stays_in_a_cache_that_is_too_small(served, tmp_path, monkeypatch):
    size = (served.folder / "models" / "aar" / "1" / WEIGHTS).stat().st_size
    store = Store(served.url, Cache(tmp_path / "small", int(1.5 * size)))
    monkeypatch.setattr(Cache.hold, "__kwdefaults__", Cache.hold.__kwdefaults__ | {"wait_s": 0.2})
    first = store.get("aar", "1")
    with pytest.raises(StorageError, match="cache_limit"):
        store.get("aar", "2")
    assert first.weights()
    del first
    assert store.get("aar", "2").version == 2
