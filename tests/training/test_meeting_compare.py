"""What is compared at the meeting, without any process."""

import base64
import dataclasses
import json
import logging
import shutil
import time
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import HashStore

from aar_dist.base.code import code_hash
from aar_dist.base.errors import ConfigError, StorageError
from aar_dist.training.config import DeepSpeedConfig
from aar_dist.training.meeting.agreement import Terms, clock_warnings, config_hash, disagreements, strangers, token
from aar_dist.training.meeting.alarm import PULSE
from aar_dist.training.meeting.compare import changed_keys, complaints, one_complaint, remarks
from aar_dist.training.meeting.facts import Facts
from aar_dist.training.meeting.hostfile import parse_hostfile, read_hostfile
from aar_dist.training.meeting.launcher import Launcher, check_hostfile, find_launcher, launcher_flags
from aar_dist.training.meeting.machine import file_system, shm_problem
from aar_dist.training.meeting.meeting import meeting
from aar_dist.training.meeting.rollcall import Life
from aar_dist.training.meeting.store import patience_s
from aar_dist.training.ranks import Ranks
from aar_dist.training.run_directory import RunDirectory


def ranks(n: int, **changed) -> list[Facts]:
    """Alike, two a host; ``changed`` holds for the last two."""
    versions = {"python": "3.11.4", "torch": "2.13.0"}
    made = [
        Facts(rank=k, world_size=n, host=f"n{k // 2}", pid=k, code="abc", versions=versions, device="cpu")
        for k in range(n)
    ]
    return made[:-2] + [dataclasses.replace(each, **changed) for each in made[-2:]]


@given(st.integers(2, 9))
def test_ranks_that_are_alike_have_no_complaint(n):
    assert one_complaint(complaints(ranks(n))) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"code": "def"}, "2 ranks on n1 runs aar_dist of code def, but rank 0 on n0 runs aar_dist of code abc; copy"),
        ({"versions": {"python": "3.11.4", "torch": "2.12"}}, "2 ranks on n1 has torch 2.12, but rank 0 on n0 has tor"),
        ({"versions": {"python": "3.11.4"}}, "2 ranks on n1 has torch none, but rank 0 on n0 has torch 2.13.0; ins"),
        ({"world_size": 8}, "2 ranks on n1 was started for 8 ranks, but rank 0 on n0 was started for 4 ranks; give"),
        ({"device": "H100"}, "2 ranks on n1 computes on a GPU, but rank 0 on n0 computes on the CPU; check its driver"),
        ({"problems": ("no room",)}, "rank 2 on n1: no room (and 1 more like this)"),
    ],
)
def test_what_is_unlike_names_who_and_what(changed, said):
    assert one_complaint(complaints(ranks(4, **changed))).startswith(said)


def test_unlike_gpus_are_only_remarked():
    facts = [dataclasses.replace(each, device="H100") for each in ranks(4)]
    facts[3] = dataclasses.replace(facts[3], device="A100")
    assert one_complaint(complaints(facts)) is None
    assert next(remarks(facts)).startswith("rank 3 on n1 computes on A100, but rank 0 on n0 computes on H100")


def test_facts_travel_as_json():
    (facts, _) = ranks(2, problems=("a", "b"))
    assert Facts.from_json(facts.to_json()) == facts


def test_the_code_hash_knows_names_and_bytes_and_not_the_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "x.py").write_text("1")
    assert code_hash(tmp_path / "a") == code_hash(tmp_path / "b")
    (tmp_path / "b" / "sub" / "x.py").rename(tmp_path / "b" / "sub" / "y.py")
    assert code_hash(tmp_path / "a") != code_hash(tmp_path / "b")


TERMS = Terms(
    who="rank 0 on n0", config="c", shards=("aaaa",), places=("S",), out="RUN", clock_s=0.0
)  # fmt: skip


def test_disagreements_name_the_key_the_shards_and_the_folder():
    texts = {"c": "a: {b: 1}", "d": "a: {b: 2, c: 3, d: 4, e: 5}"}
    others = [
        dataclasses.replace(TERMS, who="rank 1 on n1", **changed)
        for changed in ({"config": "d"}, {"shards": ("bbbb",)}, {"clock_s": -9.0})
    ]
    found = list(disagreements([TERMS, *others], texts.__getitem__))
    assert len(found) == 2
    assert ": a.b 2 instead of 1, a.c 3 instead of None, a.d 4 instead of None and 1 more; give" in found[0]
    assert ": bbbb in S, there aaaa in S;" in found[1]
    assert next(clock_warnings([TERMS, *others])).startswith(
        "the clock of rank 1 on n1 is 9 s behind that of rank 0 on n0"
    )
    assert list(clock_warnings([TERMS, *others[:2]])) == []
    (said,) = strangers([TERMS, *others[:2]], [True, False, True])
    assert said.startswith("rank 1 on n1: RUN is not the run directory of rank 0 on n0 (RUN);")


def test_places_may_differ_between_hosts():
    assert config_hash("out: /a/run\ndata: {shards: [/a], seed: 1}") == config_hash("out: /b\ndata: {seed: 1}")
    assert config_hash("data: {seed: 1}") != config_hash("data: {seed: 2}")
    assert changed_keys({"data": {"cache": "/x", "lanes": 2}}, {}, free=("data.cache",)) == {"data.lanes": (2, None)}


def test_a_token_leaves_no_folder_behind_a_refusal(tmp_path):
    folder = tmp_path / "a" / "run"

    def refused() -> None:
        with token(folder) as name:
            assert (folder / name).exists()
            raise ConfigError("no")

    with pytest.raises(ConfigError):
        refused()
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/run: Not a directory"), token(tmp_path / "file" / "run"):
        pass


def test_a_rank_whose_pulse_stands_still_is_lost():
    store = HashStore()
    life = Life(store)
    assert life.lost([1, 2], 0.05) == []
    time.sleep(0.1)
    store.add(f"{PULSE}/1", 1)
    assert life.lost([1, 2], 0.05) == [2]


def test_what_is_said_before_there_is_a_log_is_in_it(tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    kept = list(logging.root.handlers)
    try:
        with meeting():
            logging.getLogger("aar_dist.early").warning("said early")
            RunDirectory(tmp_path).open_log(Ranks(0, 1, 0, 1))
            logging.getLogger("aar_dist.late").warning("said late")
    finally:
        logging.root.handlers[:] = kept
    early, own, late = (tmp_path / "log" / "rank_0.log").read_text().splitlines()
    assert early.endswith("aar_dist.early: said early")
    assert "rank 0 is process" in own
    assert late.endswith("said late")


def test_a_hostfile_is_read_as_deepspeed_reads_it(tmp_path):
    from deepspeed.launcher.runner import _parse_hostfile

    text = "# ours\n\nn1 slots=2\n  n2  slots=4\n"
    assert parse_hostfile(text) == dict(_parse_hostfile(text.splitlines())) == {"n1": 2, "n2": 4}
    for bad, said in [
        ("n1 slots=2\nn2\n", "hosts, line 2: 'n2' is no host, expected: NAME slots=N"),
        ("n1 slots=2\nn1 slots=1", "hosts, line 2: n1 stands there twice"),
        ("n1 slots=0", "hosts, line 1: n1 has no slot"),
        ("# none", "hosts: there is no host in it"),
    ]:
        with pytest.raises(ConfigError, match="^" + said):
            parse_hostfile(bad, "hosts")
    with pytest.raises(ConfigError, match="there is no such file"):
        read_hostfile(tmp_path / "none")


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (["/v/bin/python3", "/v/bin/deepspeed", "--hostfile", "h", "launch/x.py", "--out", "o"], ("--hostfile", "h")),
        (["python", "-m", "deepspeed.launcher.runner", "-H=h", "--module", "m"], ("-H=h",)),
        (["python", "launch/pretrain.py", "--name", "deepspeed"], None),
        (["bash", "-c", "deepspeed --hostfile h"], None),
    ],
)
def test_the_launchers_own_flags_are_told_from_the_programs(command, flags):
    assert launcher_flags(command) == flags


def test_a_hostfile_that_is_not_what_was_launched_is_refused(tmp_path):
    (tmp_path / "hosts").write_text("n1 slots=2\nn2 slots=2\n")
    asked = Launcher(("--hostfile", "hosts"), tmp_path)
    check_hostfile(asked, 4)
    check_hostfile(dataclasses.replace(asked, flags=(*asked.flags, "--include=n1")), 2)
    check_hostfile(Launcher((), tmp_path), 1)
    with pytest.raises(ConfigError, match=r"hosts has 4 slots, but 1 rank\(s\) were started"):
        check_hostfile(asked, 1)
    with pytest.raises(ConfigError, match="there is no such file, and deepspeed would train on this machine alone"):
        check_hostfile(Launcher(("--hostfile=no",), tmp_path), 1)


def test_the_launcher_is_found_among_the_ancestors():
    Process = namedtuple("Process", "command cwd_")
    Process.cmdline, Process.cwd = lambda self: self.command, lambda self: self.cwd_
    world = base64.urlsafe_b64encode(json.dumps({"n1": [0, 1], "n2": [0]}).encode()).decode()
    launch = Process(["python", "-m", "deepspeed.launcher.launch", f"--world_info={world}", "x.py"], "/x")
    runner = Process(["python", "/v/bin/deepspeed", "--hostfile", "h", "x.py"], "/typed")

    class Child:
        def parents(self):
            return [launch, runner]

    found = find_launcher(Child())
    assert (found.hosts, found.here) == (("n1", "n1", "n2"), True)
    assert found.hostfile() == Path("/typed/h")
    assert [found.host_of(rank) for rank in (1, 2, 3)] == [" (host n1)", " (host n2)", ""]


def test_too_little_shared_memory_is_told_before_it_kills(tmp_path, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: usage(67_108_864)
    )  # of a container, unless it is told otherwise
    (tmp_path / "deepspeed_x").touch()
    assert list(shm_problem(1, tmp_path)) == []
    (said,) = shm_problem(2, tmp_path)
    assert "has 67.1 MB free, 2 ranks need 140.0 MB" in said
    assert "(1 files deepspeed_*)" in said


def test_a_file_system_has_a_name(tmp_path):
    assert file_system(tmp_path / "not" / "yet") == file_system(tmp_path) != ""
    assert file_system(Path("/proc")) == "proc"


def test_more_patience_for_many_hosts(monkeypatch):
    monkeypatch.delenv("AAR_DIST_MEETING_S", raising=False)
    assert patience_s(Ranks(0, 4, 0, 4)) < patience_s(Ranks(0, 4, 0, 2))
    monkeypatch.setenv("AAR_DIST_MEETING_S", "7")
    assert patience_s(Ranks(0, 4, 0, 4)) == 7
    monkeypatch.setenv("AAR_DIST_MEETING_S", "soon")
    with pytest.raises(ConfigError, match="AAR_DIST_MEETING_S must be a number of seconds, got 'soon'"):
        patience_s(Ranks(0, 4, 0, 4))


def test_an_expected_number_of_ranks():
    DeepSpeedConfig().check_ranks(3)
    DeepSpeedConfig(world_size=3).check_ranks(3)
    with pytest.raises(ConfigError, match=r"deepspeed\.world_size is 4, but 3 were started"):
        DeepSpeedConfig(world_size=4).check_ranks(3)
