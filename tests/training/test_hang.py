"""A rank that hangs is found and named, every rank's stacks are written, and nothing of the job is left."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import launching
import psutil
import pytest
from launching import finish, group, rank_process, signal_at_step, start

from aar_dist.base import last_word
from aar_dist.base.errors import ConfigError
from aar_dist.training.health.config import HealthConfig
from aar_dist.training.health.events import Events
from aar_dist.training.health.hang import HANG_EXIT
from aar_dist.training.health.pulse import Standing
from aar_dist.training.health.stacks import ASK, path_of
from aar_dist.training.health.verdict import Place, verdict
from aar_dist.training.tracking import NoTracker

SCRIPT = Path(__file__).with_name("health_script.py")
PLACES = [Place(rank, "ab"[rank // 2], 100 + rank, 0.0) for rank in range(4)]
AT = Standing(15, 7, "computing")
BEFORE = Standing(14, 7, "waiting for data")


@pytest.mark.parametrize(
    ("standings", "said"),
    [
        (
            {0: AT, 1: AT, 2: None, 3: AT},
            "rank 2 on b (process 102) gave no sign of life; the other 3 wait in step 7 (computing)",
        ),
        (
            {0: AT, 1: AT},
            "rank 2 on b (process 102), rank 3 on b (process 103) gave no sign of life; the other 2 wait in "
            "step 7 (computing)",
        ),
        (
            {0: AT, 1: BEFORE, 2: AT, 3: AT},
            "rank 1 on a (process 101) stands in step 7 (waiting for data); the other 3 wait in step 7 (computing)",
        ),
        (dict.fromkeys(range(4), AT), "all 4 ranks stand in step 7 (computing), where they wait for each other"),
    ],
)
def test_who_holds_up_the_others(standings, said):
    assert verdict(PLACES, standings, 600.4) == f"no progress for 600 s: {said}"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hang_timeout_s": 0.0}, r"health\.hang_timeout_s must be positive, or null for never, got 0"),
        ({"hang_timeout_s": 9000.0}, r"health\.slow_timeout_s must be no less than health\.hang_timeout_s, 9000"),
        ({"spike_window": 2}, r"health\.spike_window must be 8 or more"),
        ({"spike_sigma": -1.0}, r"health\.spike_sigma must be 0 or more"),
    ],
)
def test_settings_that_cannot_be(settings, said):
    with pytest.raises(ConfigError, match=said):
        HealthConfig(**settings)


@pytest.mark.parametrize("slow_timeout_s", [600.0, 3600.0, 36000.0])
def test_a_collective_outlives_the_search_for_a_hang(slow_timeout_s):
    config = HealthConfig(slow_timeout_s=slow_timeout_s)
    assert config.collective_timeout.total_seconds() >= slow_timeout_s + 300


def test_one_rank_alone():
    assert verdict(PLACES[:1], {0: BEFORE}, 60) == "no progress for 60 s: it stands in step 7 (waiting for data)"


def launch(folder: Path, what: str, world: int) -> list[subprocess.Popen]:
    return group(SCRIPT, world, folder, what)


def ends(ranks: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Exit code and error output of each."""
    return [(code, told) for code, _, told in launching.ends(ranks)]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def until_they_step(folder: Path) -> None:
    """Until the last rank of two or more has taken some steps."""
    wait_until(lambda: (folder / "step_1").exists() and int((folder / "step_1").read_text() or 0) > 2)


def test_a_stream_that_gives_nothing_is_named(tmp_path):
    found = ends(launch(tmp_path, "rank 1 gets no data", 3))
    assert [code for code, _ in found] == [HANG_EXIT] * 3
    (line,) = "".join(text for _, text in found).splitlines()
    assert re.search(
        r"error: no progress for \d+ s: rank 1 on .* stands in step 7 \(waiting for data\); the other 2 wait in "
        r"step 7 \(computing\)\. Stacks of all ranks: .*/stacks_rank_\*\.txt; the same command resumes",
        line,
    )
    stacks = [path_of(tmp_path, rank).read_text() for rank in range(3)]
    assert ["wait_for_data_that_never_comes" in text for text in stacks] == [False, True, False]
    assert ["any_rank" in text for text in stacks] == [True, False, True]
    assert (tmp_path / "told.txt").read_text().startswith("7: no progress")
    said = last_word.read(tmp_path / "last_word.json")
    assert (said.kind, said.may_pass) == ("Hang", True)  # so that a supervisor starts it again
    assert said.text in line


@pytest.mark.parametrize(("rank", "world"), [(0, 2), pytest.param(1, 3, marks=pytest.mark.slow)])
def test_a_rank_that_is_stopped_is_named_and_woken_for_its_stack(tmp_path, rank, world):
    ranks = launch(tmp_path, "is stopped", world)
    until_they_step(tmp_path)
    os.kill(ranks[rank].pid, signal.SIGSTOP)
    found = ends(ranks)
    (line,) = "".join(text for _, text in found).splitlines()
    assert f"rank {rank} on {os.uname().nodename} (process {ranks[rank].pid}) gave no sign of life" in line
    assert {code for code, _ in found} == {HANG_EXIT}
    for each in range(world):
        assert "health_script.py" in path_of(tmp_path, each).read_text()
    assert "woken to write this" in path_of(tmp_path, rank).read_text()


@pytest.mark.slow
def test_without_a_hang_nothing_is_said_or_left(tmp_path):
    assert ends(launch(tmp_path, "nothing", 2)) == [(0, "")] * 2
    assert not path_of(tmp_path, 0).exists()


@pytest.mark.slow
def test_all_ranks_stopped_and_continued_go_on(tmp_path):
    """As by Ctrl-Z and fg: time in which all of the job was stopped counts for nothing."""
    ranks = launch(tmp_path, "is stopped", 2)
    until_they_step(tmp_path)
    for number, pause_s in ((signal.SIGSTOP, 4.0), (signal.SIGCONT, 2.0)):
        for each in ranks:
            each.send_signal(number)
        time.sleep(pause_s)
    assert [each.poll() for each in ranks] == [None, None]
    for each in ranks:
        each.send_signal(ASK)  # anybody may ask a running rank where it stands
    wait_until(lambda: all(path_of(tmp_path, rank).stat().st_size for rank in (0, 1)))
    assert [each.poll() for each in ranks] == [None, None]
    for each in ranks:
        each.kill()
        each.communicate()


BUSY = """
import os, signal, sys, threading
from pathlib import Path
from aar_dist.training.health.stacks import ASK, Stacks
def deep(n):
    return deep(n - 1) if n else 0
def churn():
    while True:
        deep(300)
stacks = Stacks(Path(sys.argv[1]), 0)
for _ in range(3):
    threading.Thread(target=churn, daemon=True).start()
stacks.guard(0.05)
print("running", flush=True)
for _ in range(40_000):
    deep(20)
stacks.close()
"""


def test_stacks_asked_of_threads_that_run_end_no_rank(tmp_path):
    rank = subprocess.Popen([sys.executable, "-c", BUSY, str(tmp_path)], stdout=subprocess.PIPE)
    assert rank.stdout.readline()
    while rank.poll() is None:
        rank.send_signal(ASK)
        time.sleep(0.001)
    assert rank.returncode in (0, -ASK)  # -ASK: asked when it no longer listened
    assert "in deep" in path_of(tmp_path, 0).read_text()


CUT = """
import mmap, os, sys
from pathlib import Path
from aar_dist.training.health.stacks import Stacks
folder = Path(sys.argv[1])
stacks = Stacks(folder, 3)
shard = folder / "shard.tar"
shard.write_bytes(bytes(1 << 20))
with open(shard, "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0)
    os.truncate(shard, 4096)
def read_a_shard_that_was_cut():
    return mapped[1 << 19]
read_a_shard_that_was_cut()
"""


def test_a_rank_that_dies_of_a_cut_shard_says_where_in_its_log(tmp_path):
    done = subprocess.run([sys.executable, "-c", CUT, str(tmp_path)], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGBUS
    log = (tmp_path / "rank_3.log").read_text()
    assert "Bus error" in log
    assert "read_a_shard_that_was_cut" in log


@pytest.mark.launch
def test_a_launch_with_a_stopped_rank_ends(shard_set, tmp_path):
    out = tmp_path / "run"
    often = dict.fromkeys(("train.max_steps", "train.val_every", "train.save_every"), 100_000)
    process = start(out, shard_set, {"health.hang_timeout_s": 3.0, **often})
    signal_at_step(process, out, 5, rank=1, number=signal.SIGSTOP)
    numbers = [rank_process(out, rank) for rank in (0, 1)]
    code, said = finish(process)
    assert code == HANG_EXIT
    (line,) = [line for line in said.splitlines() if line.startswith("error")]
    assert f"(process {numbers[1]}) gave no sign of life; the other one waits in step" in line
    assert said.splitlines()[-1] == line
    assert not [number for number in numbers if psutil.pid_exists(number)]
    for rank in (0, 1):
        assert "training/loop.py" in path_of(out / "log", rank).read_text()
    (event,) = Events(out / "events.jsonl", NoTracker(out)).steps_of("hang").values()
    assert event["text"] in line
