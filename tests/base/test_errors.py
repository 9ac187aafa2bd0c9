"""How a process ends that was refused something."""

import subprocess
import sys

import pytest

from aar_dist.base.addresses import without_secrets
from aar_dist.base.errors import ConfigError, one_line, user_entry

DOOR = """
import atexit, sys, time
from aar_dist.base.errors import ConfigError, run_door, user_entry

@user_entry
def main():
    atexit.register(lambda: print("taken down slowly"))
    sys.stdout.write("said before")
    {end}

run_door(main)
"""


@pytest.mark.parametrize(
    ("end", "code", "error"),
    [
        ("raise ConfigError('a key is wrong')", 2, "error: a key is wrong\n"),
        ("raise SystemExit(0)", 0, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('in words')", 1, "in words\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
    ],
)
def test_a_door_ends_the_process_at_once(end, code, error):
    done = subprocess.run([sys.executable, "-c", DOOR.format(end=end)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "said before", error)


ABORTING = """
import atexit, os, sys
from aar_dist.base.errors import run_door

class Library:
    def __del__(self):
        os.abort()

def main():
    global library
    library = Library()
    atexit.register(lambda: sys.stdout.write("told the server"))

run_door(main)
"""


@pytest.mark.parametrize(("rank", "code"), [("1", 0), (None, -6)])
def test_a_rank_that_is_done_says_its_farewells_and_is_not_taken_down(rank, code, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    done = subprocess.run([sys.executable, "-c", ABORTING], capture_output=True, text=True)
    assert done.returncode == code
    if rank is not None:
        assert done.stdout == "told the server"


def test_in_a_process_that_goes_on_it_is_an_exception():
    @user_entry
    def main() -> None:
        raise ConfigError("a key is wrong")

    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://me:secret@bucket/x: not there", "s3://bucket/x: not there"),
        ("(https://ghp_secret@host/x, https://host/y?sig=secret)", "(https://host/x, https://host/y)"),
        ("a: [https://host/x?sig=secret, b]", "a: [https://host/x, b]"),
        (r'{"a": "--shards [\"https://host/x?sig=secret\"]"}', r'{"a": "--shards [\"https://host/x\"]"}'),
        ("store://herd@1 of https://host:80/models/", "store://herd@1 of https://host:80/models"),
        ('{"a":"s3://bucket","m":"me@home"}', '{"a":"s3://bucket","m":"me@home"}'),
        ("https://me:secret@[", "(hidden)"),
        ("abfs://herd@account.dfs.core.windows.net/x", "abfs://herd@account.dfs.core.windows.net/x"),
    ],
)
def test_no_error_tells_a_secret(text, shown):
    assert without_secrets(text) == shown
    assert one_line(ConfigError(text)) == shown
