"""Judging attempts, choosing hosts, ending leftovers: the parts of the supervisor that need no launch."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from aar_dist.base import carried, last_word
from aar_dist.base.errors import ConfigError, PassingError
from aar_dist.base.last_word import LastWord
from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.supervision import attempts, leftovers
from aar_dist.training.supervision.attempts import Attempt
from aar_dist.training.supervision.command import command, env_file
from aar_dist.training.supervision.hosts import Host, Silent, hostfile, hosts_of, on_each, ranks_for, silent, spread
from aar_dist.training.supervision.judge import LONGEST_WAIT_S, End, judge, wait_s
from aar_dist.training.supervision.launching import Launching, Patience
from aar_dist.training.supervision.main import main
from aar_dist.training.supervision.request import Request
from aar_dist.training.supervision.watch import Watch

KILLED = End(finished=False, said=None, noticed="the launcher ended with exit code 0", asked="", progressed=False)


def said(kind: str, *, may_pass: bool) -> End:
    return End(
        finished=False, said=LastWord(kind, "the line", may_pass), noticed="exit code 2", asked="", progressed=False
    )


def test_the_marker_alone_means_finished():
    """An exit code of 0 does not, and one of an abort after the work was done does not matter."""
    assert judge(KILLED, 0, 5).then == "again"
    done = End(finished=True, said=None, noticed="the launcher ended with exit code 250", asked="", progressed=True)
    assert (judge(done, 4, 5).then, done.how) == ("done", "finished")


def test_a_mistake_is_not_tried_again_and_what_may_pass_is():
    assert judge(said("ConfigError", may_pass=False), 0, 5).then == "mistake"
    assert said("ConfigError", may_pass=False).how == "ConfigError: the line"
    assert judge(said("StorageError", may_pass=True), 0, 5).then == "again"
    unmounted = replace(said("ShardError", may_pass=False), worked_before=True)
    assert (judge(unmounted, 0, 5).then, judge(unmounted, 4, 5).then) == ("again", "give up")


def test_a_run_that_was_asked_to_stop_or_whose_time_is_over_is_left_alone():
    assert judge(said(last_word.TIME_LIMIT, may_pass=True), 0, 5).then == "stopped"
    asked = End(finished=False, said=None, noticed="", asked="the supervisor got SIGINT", progressed=True)
    assert judge(asked, 0, 5).then == "stopped"
    preempted = said(last_word.STOPPED, may_pass=True)
    assert judge(preempted, 0, 5).then == "again"
    assert preempted.how == "stopped: the line"


def test_it_gives_up_after_failures_in_a_row_without_progress():
    failures, waits = 0, []
    for _ in range(4):
        verdict = judge(KILLED, failures, 5)
        assert verdict.then == "again"
        failures = verdict.failures
        waits.append(verdict.wait_s)
    assert waits == [2.0, 4.0, 8.0, 16.0]
    assert judge(KILLED, failures, 5).then == "give up"
    progressed = End(finished=False, said=None, noticed="exit code 247", asked="", progressed=True)
    assert (judge(progressed, failures, 5).failures, judge(progressed, failures, 5).wait_s) == (0, 0.0)
    assert wait_s(60) == LONGEST_WAIT_S


def test_what_an_attempt_cost_is_known_when_the_next_one_steps(tmp_path):
    def attempt(number: int, **times) -> Attempt:
        steps = {"from_step": 0, "to_step": 4, "reached": 6}
        return Attempt(number=number, hosts=["a", "b"], ranks=2, **steps, **times)

    made = [
        attempt(1, started=0.0, ready=20.0, saved=30.0, ended=37.0, how="10.0.0.2 no longer answers"),
        attempt(2, started=40.0, ready=None, saved=None, ended=50.0, how="StorageError: the disk is full"),
        attempt(3, started=55.0, ready=75.0, saved=80.0, ended=90.0, how="finished"),
    ]
    assert attempts.lost_s(made) == [7.0 + (50.0 - 37.0), 55.0 - 40.0, 0.0]
    for each in made:
        attempts.append(tmp_path, each)
    with open(tmp_path / attempts.NAME, "a") as file:
        file.write('{"number": 4, "ho')
    attempts.append(tmp_path, made[0])
    assert attempts.read(tmp_path) == [*made, made[0]]
    assert attempts.table(made).splitlines()[1].split("  ")[-1] == "10.0.0.2 no longer answers"


def test_missing_hosts_leave_fewer_ranks_that_divide_the_batch(tmp_path):
    (tmp_path / "hosts").write_text("# two racks\na slots=4\n\nb slots=4  # old\n")
    hosts = hosts_of(tmp_path / "hosts")
    assert hosts == [Host("a", 4), Host("b", 4)]
    assert ranks_for(7, lambda ranks: 32 % ranks == 0) == 4
    assert ranks_for(3, lambda ranks: False) == 0
    assert spread([Host("a", 3), Host("b", 4)], 4) == [Host("a", 3), Host("b", 1)]
    assert spread([Host("a", 4), Host("b", 4)], 4) == [Host("a", 4)]
    assert hostfile(hosts) == "a slots=4\nb slots=4\n"


def test_only_hosts_that_answer_in_time_are_used(tmp_path, monkeypatch):
    """An ssh that knows three hosts: one runs commands, one refuses, one hangs."""
    ssh = tmp_path / "ssh"
    refuses = "echo; echo 'bad: Permission denied (publickey).'; echo"
    ssh.write_text(
        f'#!/bin/sh\ncase "$*" in *good*) shift 6; eval "$@";; *slow*) sleep 60;; *) ({refuses}) >&2; exit 255;; esac\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    hosts = [Host("slow", 1), Host("good", 1), Host("bad", 1)]
    refused = "bad: Permission denied (publickey)."
    assert silent(hosts, ["true"], timeout_s=2.0) == {"slow": "no answer within 2 s", "bad": refused}
    assert on_each(hosts[1:], ["echo", "two words"], 5.0) == {"good": "two words\n", "bad": Silent(refused)}


class Rack:
    """Two hosts of one slot; of each look, which are silent."""

    remote = True

    def __init__(self, *looks: dict[str, str]) -> None:
        self.hosts, self.looks = [Host("a", 1), Host("b", 1)], list(looks)
        self.silent: dict[str, str] = {}

    def ready(self, grace_s: float) -> list[Host]:
        self.silent = self.looks.pop(0)
        return [host for host in self.hosts if host.name not in self.silent]


def launching(rack: Rack, folder: Path, *, wait_s: float = 0.0, fits=lambda ranks: True) -> Launching:
    patience = Patience(wait_s=wait_s)
    return Launching(["x.py"], RunDirectory(folder), rack, patience, Request(), fits)  # type: ignore[arg-type]


BOTH, NONE, OFF = {"a": "no route", "b": "refused"}, {}, {"b": "no route"}


def test_hosts_that_are_missing_are_named_with_the_reason(tmp_path, capsys):
    assert launching(Rack(OFF), tmp_path).hosts() == [Host("a", 1)]
    assert "going on without b (no route)" in capsys.readouterr().out


def test_a_run_that_cannot_begin_ends_and_one_that_had_begun_waits(tmp_path):
    """Weeks are not given up because of a network that is down for an hour."""
    with pytest.raises(PassingError, match=r"without a \(no route\), b \(refused\)"):
        launching(Rack(BOTH), tmp_path).hosts()
    later = launching(Rack(BOTH, BOTH, NONE), tmp_path)
    later._began = True
    assert later.hosts() == [Host("a", 1), Host("b", 1)]


def test_a_run_that_wants_all_its_ranks_is_not_begun_with_fewer(tmp_path):
    """deepspeed.world_size: fewer would end as a mistake."""
    two = launching(Rack(OFF, NONE), tmp_path, wait_s=0.2, fits=lambda ranks: ranks == 2)
    assert two.hosts() == [Host("a", 1), Host("b", 1)]
    with pytest.raises(ConfigError, match="2 slots"):
        launching(Rack(NONE), tmp_path, fits=lambda ranks: ranks == 3).hosts()


def test_the_launch_of_hosts_is_never_taken_for_one_of_this_machine(tmp_path):
    words = command(["launch/pretrain.py", "--out", "x"], hostfile=tmp_path / "h", first="a", ranks=1, port=29501)
    assert "--force_multi" in words
    assert words[words.index("--master_addr") + 1] == "a"
    assert words[-3:] == ["launch/pretrain.py", "--out", "x"]
    here = command(["launch/pretrain.py"], hostfile=None, first="", ranks=2, port=29501)
    assert here[here.index("--num_accelerators") + 1] == "2"


def test_what_travels_to_other_hosts(tmp_path):
    users = tmp_path / "env"
    users.write_text("\nGLOO_SOCKET_IFNAME=eth0\nDS_ACCELERATOR=cpu\n\n")
    environ = {"WANDB_API_KEY": "k", "HOME": "/root", "DS_ACCELERATOR": "cuda", "DS_ENV_FILE": str(users)}
    private = tmp_path / "private"
    lines = env_file(environ, {leftovers.MARK: "/run"}, private).splitlines()
    pointer = f"{carried.POINTER}={private}"
    assert sorted(lines) == sorted([pointer, "AAR_DIST_RUN=/run", "DS_ACCELERATOR=cpu", "GLOO_SOCKET_IFNAME=eth0"])
    assert carried.kept(private) == {"WANDB_API_KEY": "k"}
    with pytest.raises(ConfigError, match="cannot be handed on"):
        env_file(environ, {leftovers.MARK: "/a%h"}, private)


@pytest.fixture
def family(tmp_path):
    """A launcher of one rank, which has started a helper: and a process of another run."""
    rank = "import subprocess, signal; signal.signal(15, lambda *a: exit(0)); subprocess.run(['sleep', '60'])"
    script = f"import os, subprocess, sys; os.environ['RANK'] = '0'; subprocess.run([sys.executable, '-c', {rank!r}])"
    started = []
    # A run in this very process, of an earlier test, has made it a rank: the launcher is none.
    inherited = {key: value for key, value in os.environ.items() if key != "RANK"}
    for name in ("mine", "other"):
        environ = {**inherited, leftovers.MARK: str(tmp_path / name)}
        started.append(subprocess.Popen([sys.executable, "-c", script], env=environ, start_new_session=True))
    yield [str(tmp_path / name) for name in ("mine", "other")]
    for name in ("mine", "other"):
        leftovers.end(str(tmp_path / name), 0.0)
    for process in started:
        process.wait()


def until(holds) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def names(processes: list[psutil.Process]) -> set[str]:
    """Of those that are still there."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found.add(process.name())
    return found


def test_leftovers_are_found_by_their_mark_and_nobody_elses_are_touched(family):
    mine, other = family
    until(lambda: all(len(leftovers.marked(run)) == 3 for run in family))
    assert len(leftovers.ranks(mine)) == 1
    time.sleep(0.2)
    command = [sys.executable, "-m", "aar_dist.training.supervision.leftovers", mine]
    assert subprocess.check_output([*command, "--ask"], text=True) == "1\n"
    until(lambda: names(leftovers.ranks(mine)) <= {"sleep"})
    assert subprocess.check_output([*command, "--grace", "1"], text=True) == "0\n"
    assert leftovers.marked(mine) == {}
    assert len(leftovers.marked(other)) == 3


def test_a_launcher_is_ended_without_a_signal_that_it_would_hand_on(tmp_path):
    """DeepSpeed's would run pkill on all hosts, for the launches of other runs too."""
    heard, there = tmp_path / "heard", tmp_path / "there"
    script = f"trap 'touch {heard}' TERM INT HUP; setsid sleep 987 & echo $! >{there}; while :; do sleep 0.1; done"
    watch = Watch(["bash", "-c", script], os.environ, RunDirectory(tmp_path), tmp_path / "said", tmp_path / "log")
    until(lambda: there.exists() and there.read_text())
    watch.end()
    assert not heard.exists()
    # What has a session of its own ends too, as pdsh's ssh; an init that does not reap keeps its name.
    until(lambda: not psutil.pid_exists(pid := int(there.read_text())) or psutil.Process(pid).status() == "zombie")


def test_the_first_to_speak_has_the_last_word(tmp_path, monkeypatch):
    LastWord("ConfigError", "nobody listens", may_pass=False).leave()
    monkeypatch.setenv(last_word.VARIABLE, str(tmp_path / "log" / "said"))
    LastWord("ConfigError", "first", may_pass=False).leave()
    LastWord("PassingError", "another rank is gone", may_pass=True).leave()
    assert last_word.read(tmp_path / "log" / "said") == LastWord("ConfigError", "first", may_pass=False)
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["said"]
    assert last_word.read(tmp_path / "nothing") is None

    def no_links(*names):
        raise PermissionError

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "log" / "said").unlink()
    for text in ("first", "second"):
        LastWord("ConfigError", text, may_pass=False).leave()
    assert last_word.read(tmp_path / "log" / "said") == LastWord("ConfigError", "first", may_pass=False)
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["said"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "error: the training script is missing"),
        (["--hostfiles", "x", "launch/pretrain.py"], "error: --hostfiles: no such flag; did you mean --hostfile?"),
        (["launch/nowhere.py"], "error: launch/nowhere.py: no such training script"),
        (["launch/folds.py"], "error: launch/folds.py: only launch/pretrain.py and launch/finetune.py"),
        (["launch/pretrain.py", "--out", "OUT", "--train.batchsize", "8"], "unknown flag --train.batchsize"),
        (
            ["--hostfile", "nowhere", "launch/pretrain.py", "--out", "OUT"],
            "error: hostfile nowhere: there is no",
        ),
        (["--status", "OUT"], "no attempt is recorded there"),
    ],
)
def test_mistakes_are_told_before_anything_is_launched(tmp_path, monkeypatch, capsys, arguments, line):
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as left:
        main([str(tmp_path / "run") if word == "OUT" else word for word in arguments])
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()
