"""What a rank stops for, and how all ranks agree on the place."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from launching import ends, group

from aar_dist.training.ranks import Ranks
from aar_dist.training.stopping import stopper
from aar_dist.training.stopping.deadline import MARGIN_S, UNKNOWN_SAVE_S, Deadline
from aar_dist.training.stopping.launcher import LauncherWatch
from aar_dist.training.stopping.stopper import Stopper

ALONE = Ranks(0, 1, 0, 1)


def test_all_ranks_stop_in_the_same_micro_batch_soon_after_one_was_asked():
    said = [told for _, told, _ in ends(group(Path(__file__).with_name("stopper_script.py"), 2))]
    assert said[0] == said[1]
    step, micro, reason = said[0].strip().split(maxsplit=2)
    assert (step, reason) == ("2", "rank 1 got SIGTERM")
    assert 4 <= int(micro) < 19


def test_a_limit_counts_from_the_start_of_the_process_and_slurms_end_may_come_sooner():
    born = psutil.Process().create_time()
    assert Deadline.of(None, {}).at is None
    assert not Deadline.of(None, {}).near(1e9)
    assert Deadline.of(90, {}).at == born + 5400
    assert Deadline.of(90, {"SLURM_JOB_END_TIME": str(int(born) + 60)}).at == int(born) + 60
    assert Deadline.of(None, {"SLURM_JOB_END_TIME": "unknown"}).at is None


def test_it_stops_so_early_that_a_step_and_a_save_fit_in():
    left = 1.5 * (10 + UNKNOWN_SAVE_S) + MARGIN_S
    assert Deadline(time.time() + left - 1).near(10)
    assert not Deadline(time.time() + left + 60).near(10)
    with Stopper(ALONE, Deadline(time.time() + 1.5 * 100 + MARGIN_S)) as stop:
        stop.saved(0.1)
        assert not stop.after_step()
        stop.saved(200.0)
        assert stop.after_step()
        assert stop.reason == "its time limit is near"


def test_until_one_was_saved_a_large_checkpoint_is_given_time():
    deadline = Deadline(time.time() + 120)
    deadline.expect(1_000_000)
    assert not deadline.near(1)
    deadline.expect(18_000_000_000)
    assert deadline.near(1)
    with Stopper(ALONE, deadline) as stop:
        stop.saved(5.0)
        deadline.expect(18_000_000_000)
        assert not stop.after_step()


def test_the_signal_that_came_is_told():
    with Stopper(ALONE) as stop:
        assert not stop.after_step()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.after_step()
        assert stop.reason == "rank 0 got SIGUSR1"


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as the stopper measures them."""
    now = [0.0]
    monkeypatch.setattr(stopper, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_after_a_long_validation_a_step_hears_as_soon_as_before(clock):
    with Stopper(ALONE) as stop:

        def micro() -> bool:
            clock[0] += 1.0
            return stop.within()

        assert not any(micro() for _ in range(60))
        stop.begin_step()
        assert not any(micro() for _ in range(10))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert any(micro() for _ in range(8))


def test_a_slow_start_is_no_reason_to_stop_after_the_first_step(clock):
    with Stopper(ALONE, Deadline(time.time() + 500)) as stop:
        clock[0] = 600.0
        stop.begin_step()
        clock[0] += 1.0
        assert not stop.after_step()


RANK = """
import sys, time
from aar_dist.training.stopping import launcher
launcher.LOOK_EVERY_S = 0.05
watched = launcher.LauncherWatch(["script.py", "--local_rank=0"], last_s=0.5).watch()
print("gone" if watched.gone() else "there", flush=True)
time.sleep(60)
"""
LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
RUNNER = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'deepspeed.launcher.launch', sys.argv[1]])"


@pytest.fixture
def family(tmp_path):
    """A runner called deepspeed, its launcher, and the launcher's rank; none of them the real one."""
    module = tmp_path / "deepspeed" / "launcher" / "launch.py"
    module.parent.mkdir(parents=True)
    for folder in module.parents[:2]:
        (folder / "__init__.py").touch()
    module.write_text(LAUNCHER)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "deepspeed").write_text(RUNNER)
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    runner = subprocess.Popen(
        [sys.executable, tmp_path / "bin" / "deepspeed", RANK], env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert runner.stdout is not None
    assert runner.stdout.readline() == "there\n"
    launcher = psutil.Process(runner.pid).children()[0]
    rank = launcher.children()[0]
    yield {"runner": psutil.Process(runner.pid), "launcher": launcher, "rank": rank}
    for process in (rank, launcher):
        if process.is_running():
            process.kill()
    runner.kill()
    runner.wait()


@pytest.mark.parametrize("who", ["runner", "launcher"])
def test_a_rank_ends_when_it_has_lost_its_launcher(family, who):
    assert family["rank"].is_running()
    family[who].kill()
    psutil.wait_procs([family["rank"]], timeout=30)
    assert not family["rank"].is_running()


def test_an_orphan_knows_and_a_process_that_no_launcher_started_is_none():
    assert LauncherWatch(["pretrain.py", "--local_rank=0"]).gone()
    assert not LauncherWatch(["pretrain.py"]).gone()
