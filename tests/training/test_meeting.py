"""What the ranks of a launch find out of each other before anything else. Real processes, no launcher."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launching import DEEPSPEED, ROOT, environment, finish
from torch.distributed import TCPStore

from aar_dist.training.ranks import free_port

SCRIPT = Path(__file__).with_name("meeting_script.py")


def meet(folder: Path, *told: dict, world: int = 0, ranks: tuple[int, ...] = (), **env: str) -> list[tuple]:
    """Exit code, output and error output of each process, which are ranks 0, 1, … unless told otherwise."""
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), str(each.get("world", world or len(told))), port,
             json.dumps({"out": str(folder / "run"), **each})],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | env,
        )
        for rank, each in zip(ranks or range(len(told)), told, strict=True)
    ]  # fmt: skip
    said = [process.communicate(timeout=90) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, said, strict=True)]


def test_ranks_that_agree_go_on_and_leave_nothing(tmp_path):
    for code, out, said in meet(tmp_path, {}, {"ahead_s": 30}):
        assert code == 0
        assert out.startswith("agreed")
        assert re.fullmatch(r"(WARNING: the clock of rank 1 on \S+ is (29|30|31) s ahead of .* \(chrony\)\n)?", said)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"code": "0ther"}, "rank 1 on HOST runs aar_dist of code 0ther, but rank 0 on HOST runs aar_dist of code "),
        ({"out": "ELSEWHERE"}, "rank 1 on HOST: ELSEWHERE is not the run directory of rank 0 on HOST "),
    ],
)  # fmt: skip
def test_what_differs_is_one_line_of_rank_0_and_leaves_no_run(tmp_path, other, said):
    elsewhere = str(tmp_path / "elsewhere")
    other = {key: value.replace("ELSEWHERE", elsewhere) for key, value in other.items()}
    first, second = meet(tmp_path, {}, other)
    pattern = "error: " + re.escape(said).replace("HOST", r"\S+").replace("ELSEWHERE", elsewhere) + r"[^\n]*\n"
    assert first[:2] == second[:2] == (2, "")
    assert re.fullmatch(pattern, first[2]), first[2]
    assert second[2] == ""
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_does_not_come_is_named(tmp_path):
    ((code, _, said),) = meet(tmp_path, {}, world=2, AAR_DIST_MEETING_S="1")
    assert code == 2
    assert said.startswith("error: rank 1 of 2 did not come within 1 s; ")


def test_without_rank_0_the_others_say_where_they_looked(tmp_path):
    ((code, _, said),) = meet(tmp_path, {}, world=2, ranks=(1,), AAR_DIST_MEETING_S="1")
    assert code == 2
    assert re.fullmatch(r"error: rank 1: rank 0 did not answer at 127.0.0.1:\d+ within 1 s: [^\n]*\n", said)


def test_a_port_of_another_program_is_no_wait_for_ever(tmp_path):
    """It is a store of torch as well, so that all calls succeed."""
    other = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    command = [sys.executable, SCRIPT, "1", "2", str(other.port), json.dumps({"out": str(tmp_path)})]
    done = subprocess.run(
        command, env=os.environ | {"AAR_DIST_MEETING_S": "1"}, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 2
    assert re.fullmatch(r"error: rank 1: what answers at 127.0.0.1:\d+ is not rank 0 of this launch; .*\n", done.stderr)


def test_ranks_of_two_different_hostfiles(tmp_path):
    first, stranger = meet(tmp_path, {}, {"world": 3}, world=2, ranks=(0, 2))
    assert first[0] == stranger[0] == 2
    assert re.match(r"error: rank 2 on \S+ was started for 3 ranks, rank 0 for 2; give every host the", first[2])


def test_the_same_rank_twice_is_refused_and_disturbs_nobody(tmp_path):
    found = meet(tmp_path, {"wait": 4.0}, {"wait": 4.0}, {"wait": 4.0}, world=2, ranks=(0, 1, 1))
    assert sorted(code for code, *_ in found) == [0, 0, 2]
    (twice,) = [said for code, _, said in found if code == 2]
    assert re.match(r"error: rank 1: rank 1 on \S+ is there twice: give each host its own --node_rank", twice)


def test_a_port_in_use_is_one_line(tmp_path):
    import socket

    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, SCRIPT, "0", "2", str(port), json.dumps({"out": str(tmp_path)})],
            capture_output=True, text=True, timeout=90,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        f"error: port {port} is in use on this machine; give the launcher another one: deepspeed --master_port N\n"
    )


@pytest.mark.launch
def test_a_hostfile_that_is_missing_is_no_launch_on_one_machine(tmp_path):
    """DeepSpeed itself only warns, and would train here alone."""
    launcher = [DEEPSPEED, "--hostfile", "no/hosts", "--num_accelerators", "2", "--master_port", str(free_port())]
    launch = subprocess.Popen(
        [*launcher, "launch/pretrain.py", "--out", str(tmp_path / "run")],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    code, said = finish(launch)
    assert code == 2
    assert said == (
        f"error: hostfile {ROOT}/no/hosts: there is no such file, and deepspeed would train on this machine alone; "
        "mend the path, or leave --hostfile out"
    )
    assert not (tmp_path / "run").exists()
