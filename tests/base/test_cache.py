"""The cache: one download, never above its limit, nothing lost to a kill, nothing removed that is in use."""

import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aar_dist.base.cache import Cache
from aar_dist.base.errors import ShardError, StorageError
from aar_dist.base.room import NoRoom


def content(number: int, size: int) -> bytes:
    return hashlib.sha256(bytes([number])).digest() * (size // 32) + b"x" * (size % 32)


class Served:
    """Files that can be fetched, and how often they were."""

    def __init__(self, *sizes: int) -> None:
        self.data = [content(number, size) for number, size in enumerate(sizes)]
        self.fetched: list[int] = []

    def hold(self, cache: Cache, number: int, **options):
        data = self.data[number]

        def fetch(part: Path) -> str:
            self.fetched.append(number)
            part.write_bytes(data)
            return hashlib.sha256(data).hexdigest()

        return cache.hold(hashlib.sha256(data).hexdigest(), len(data), fetch, f"file {number}", **options)


def on_disk(root: Path) -> int:
    """Bytes below the cache folder at one moment; 0 if it changed while we looked: a file that is named or removed
    meanwhile would count beside what took its place."""
    found = _files(root)
    return sum(size for size, *_ in found.values()) if found == _files(root) else 0


def _files(root: Path) -> dict[Path, tuple[int, int, int]]:
    found = {}
    for path in root.glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            found[path] = (about.st_size, about.st_ino, about.st_ctime_ns)
    return found


def test_a_file_is_fetched_once_and_outlives_the_program(tmp_path):
    served = Served(1000)
    for _ in range(2):
        with served.hold(Cache(tmp_path, 5000), 0) as blob:
            assert blob.file.read() == served.data[0]
    assert served.fetched == [0]


def test_a_file_that_is_only_read_is_read(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EROFS, "Read-only file system")

    served, cache = Served(1000), Cache(tmp_path, 5000)
    served.hold(cache, 0).close()
    monkeypatch.setattr(os, "utime", refuse)
    with served.hold(cache, 0) as blob:
        assert blob.file.read() == served.data[0]
    assert served.fetched == [0]


def test_threads_that_want_one_file_share_its_download(tmp_path):
    served, cache = Served(1000), Cache(tmp_path, 5000)
    threads = [threading.Thread(target=lambda: served.hold(cache, 0).close()) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served.fetched == [0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_what_was_used_longest_ago_goes_first_and_what_is_held_stays(tmp_path_factory, steps):
    """Against a model: an ordered dictionary of what is there, least recently used first."""
    sizes = [100, 200, 300, 150, 250, 1000]
    served, cache = Served(*sizes), Cache(tmp_path_factory.mktemp("cache"), 700)
    model: OrderedDict[int, int] = OrderedDict()
    held: dict[int, list] = {}
    for clock, (number, lets_go) in enumerate(steps):
        if lets_go:
            for blob in held.pop(number, []):
                blob.close()
            continue
        need = sizes[number] if number not in model else 0
        room = 700 - sum(size for other, size in model.items() if other in held)
        if sizes[number] > 700:
            with pytest.raises(StorageError, match="to at least 1000"):
                served.hold(cache, number)
            continue
        if need > room:
            with pytest.raises(NoRoom):
                served.hold(cache, number, wait_s=0)
            # All that was free to go has gone in vain.
            model = OrderedDict((k, v) for k, v in model.items() if k in held)
            continue
        for other in list(model):
            if sum(model.values()) + need <= 700:
                break
            if other not in held:
                del model[other]
        blob = served.hold(cache, number, wait_s=0)
        held.setdefault(number, []).append(blob)
        os.utime(blob.path, (clock, clock))  # a clock that the file system resolves
        model[number] = sizes[number]
        model.move_to_end(number)
        assert {e.path for e in cache.entries()} == {
            cache.path(hashlib.sha256(served.data[n]).hexdigest()) for n in model
        }
        assert cache.used() <= 700
    for blobs in held.values():
        for blob in blobs:
            blob.close()


USER = """
import hashlib, random, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from base.test_cache import Served
from aar_dist.base.cache import Cache
served, cache, draw = Served(*range(1000, 13000, 1000)), Cache(Path({root!r}), 30000), random.Random({seed})
def slow(part, data):
    with part.open("wb") as file:
        for at in range(0, len(data), 500):
            file.write(data[at:at + 500]); file.flush(); time.sleep(0.0005)
    return hashlib.sha256(data).hexdigest()
until = time.monotonic() + {seconds}
while time.monotonic() < until:
    data = served.data[draw.randrange(12)]
    with cache.hold(hashlib.sha256(data).hexdigest(), len(data), lambda part: slow(part, data), "a file") as blob:
        time.sleep(draw.random() * 0.01)
        assert blob.file.read() == data
"""


def use(root: Path, seed: int, seconds: float) -> subprocess.Popen:
    code = USER.format(tests=str(Path(__file__).parents[1]), root=str(root), seed=seed, seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code])


def test_several_processes_one_of_them_killed_never_exceed_the_limit(tmp_path):
    users = [use(tmp_path, seed, 60.0 if seed == 0 else 2.0) for seed in range(3)]
    most, begin = 0, time.monotonic()
    while any(user.poll() is None for user in users[1:]):
        most = max(most, on_disk(tmp_path))
        if users[0].poll() is None and list(tmp_path.glob("*/*.part")) and time.monotonic() - begin > 1.5:
            users[0].send_signal(signal.SIGKILL)
        time.sleep(0.001)
    assert [user.wait() for user in users] == [-signal.SIGKILL, 0, 0]
    assert 15000 < most <= 30000
    Cache(tmp_path, 30000).sweep()
    assert not list(tmp_path.glob("*/*.part"))


def test_a_killed_download_blocks_nobody(tmp_path, monkeypatch):
    served = Served(2000)
    code = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from base.test_cache import Served
from aar_dist.base.cache import Cache
import hashlib
data = Served(2000).data[0]
def stall(part):
    part.write_bytes(data[:700]); print("half", flush=True); time.sleep(60)
Cache(Path({str(tmp_path)!r}), 5000).hold(hashlib.sha256(data).hexdigest(), 2000, stall, "a file")
"""
    killed = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert killed.stdout.readline() == "half\n"
    killed.kill()
    killed.wait()
    assert len(list(tmp_path.glob("*/*.part"))) == 1
    monkeypatch.setattr("aar_dist.base.cache.wait_for", lambda part: pytest.fail("a dead process is waited for"))
    with served.hold(Cache(tmp_path, 5000), 0) as blob:
        assert blob.file.read() == served.data[0]
    assert not list(tmp_path.glob("*/*.part"))


def test_a_left_over_download_is_swept_and_one_at_work_is_not(tmp_path):
    served, cache = Served(1000), Cache(tmp_path, 5000)
    (tmp_path / "ab").mkdir()
    left = tmp_path / "ab" / f"{'ab' * 32}.4000.part"
    left.write_bytes(b"x")
    working, done = threading.Event(), threading.Event()

    def slow(part: Path) -> str:
        working.set()
        done.wait(10)
        part.write_bytes(served.data[0])
        return hashlib.sha256(served.data[0]).hexdigest()

    sha256 = hashlib.sha256(served.data[0]).hexdigest()
    thread = threading.Thread(target=lambda: cache.hold(sha256, 1000, slow, "a file").close())
    thread.start()
    working.wait(10)
    assert cache.sweep() == [left]
    assert cache.used() == 1000, "a download counts with all it is going to have"
    done.set()
    thread.join()
    assert cache.path(sha256).exists()


def test_only_files_of_the_cache_are_removed(tmp_path):
    (tmp_path / "ab").mkdir()
    others = [tmp_path / "notes.txt", tmp_path / "ab" / "notes.txt", tmp_path / "ab" / ("g" * 64)]
    for path in others:
        path.write_bytes(b"x" * 900)
    served, cache = Served(600, 700), Cache(tmp_path, 1000)
    for number in range(2):
        served.hold(cache, number).close()
    assert all(path.exists() for path in others)
    assert cache.used() == 700


def test_wrong_bytes_are_fetched_again_and_three_times_wrong_is_an_error(tmp_path):
    data, cache = b"good" * 100, Cache(tmp_path, 5000)
    sha256 = hashlib.sha256(data).hexdigest()
    answers = [b"bad!" * 100, data]

    def fetch(part: Path) -> str:
        said = answers.pop(0) if answers else b"bad!" * 100
        part.write_bytes(said)
        return hashlib.sha256(said).hexdigest()

    cache.hold(sha256, 400, fetch, "http://host/a.tar").close()
    cache.path(sha256).unlink()
    with pytest.raises(ShardError, match=rf"^http://host/a.tar: sha256 \w+, expected {sha256}: wrong 3 times"):
        cache.hold(sha256, 400, fetch, "http://host/a.tar")
    assert cache.entries() == []


def test_a_file_that_was_cut_short_in_the_cache_is_fetched_again(tmp_path):
    served, cache = Served(1000), Cache(tmp_path, 5000)
    with served.hold(cache, 0) as blob:
        path = blob.path
    os.truncate(path, 10)
    with served.hold(cache, 0) as blob:
        assert blob.file.read() == served.data[0]


def test_what_others_hold_is_waited_for_and_then_named(tmp_path):
    served, cache = Served(600, 700), Cache(tmp_path, 1000)
    held = served.hold(cache, 0)
    with pytest.raises(StorageError, match=r"file 1 and all that is in use at once it takes 1\.3 kB; .* at least 1300"):
        served.hold(cache, 1, wait_s=0.2)
    threading.Timer(0.3, held.close).start()
    served.hold(cache, 1, wait_s=5).close()


def test_small_files_of_unknown_size(tmp_path):
    cache, data, asked = Cache(tmp_path, 1000), b"labels", []

    def read() -> bytes:
        asked.append(1)
        return data

    sha256 = hashlib.sha256(data).hexdigest()
    assert [cache.small(sha256, read, "x") for _ in range(2)] == [data, data]
    assert len(asked) == 1
    cache.path(sha256).write_bytes(b"l@bels")
    assert cache.small(sha256, read, "x") == data
    assert Cache(tmp_path / "none", 1).small(sha256, read, "x") == data, "no room stops nothing"


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("AAR_DIST_CACHE", str(tmp_path / "a"))
    assert Cache.of().root == tmp_path / "a"
    assert Cache.of(str(tmp_path / "b"), 2 * 10**9).limit == 2 * 10**9
    monkeypatch.delenv("AAR_DIST_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Cache.of().root == tmp_path / ".cache" / "aar_dist"
    free = os.statvfs(tmp_path)
    assert 0.3 < Cache.of().limit / (free.f_bavail * free.f_frsize) < 0.6


FULL_DISK = """
import hashlib, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from base.test_cache import Served
from aar_dist.base import cache as module
from aar_dist.base.errors import AarError
module.DISK_WAIT_S = 0.5
served, cache = Served(*[900_000] * 6), module.Cache(Path({disk!r}), 10**9)
for number in range(6):
    served.hold(cache, number).close()
print(sorted(set(served.fetched)))
held = [served.hold(cache, number) for number in (0, 1, 2)]
try:
    served.hold(cache, 3)
except AarError as error:
    print(error)
print(len(list(Path({disk!r}).glob("*/*.part"))))
"""


def test_a_full_disk_is_tried_again_after_evicting_and_then_named(tmp_path):
    """A tmpfs of 3 MB, in a mount namespace of its own."""
    tests = str(Path(__file__).parents[1])
    (tmp_path / "code.py").write_text(FULL_DISK.format(tests=tests, disk=str(tmp_path / "disk")))
    (tmp_path / "disk").mkdir()
    script = f"mount -t tmpfs -o size=3m none {tmp_path}/disk && {sys.executable} {tmp_path}/code.py"
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    done = subprocess.run([*namespace, "sh", "-c", script], capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0] == "[0, 1, 2, 3, 4, 5]"
    assert lines[1].startswith(f"{tmp_path}/disk: the disk is full (")
    assert lines[2:] == ["0"]
