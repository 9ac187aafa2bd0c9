"""A data set folder appears whole or not at all, and what a killed process left goes with the next try."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from aar_dist.base.errors import RecordingError, StorageError
from aar_dist.base.storage import STAGING_MARK
from aar_dist.recordings.contract import find_recordings
from aar_dist.recordings.out import new_folder
from aar_dist.recordings.simulate import main

ROOT = Path(__file__).parents[2]
HALF_DONE = """
import os, signal, sys
from pathlib import Path
from aar_dist.recordings.out import new_folder
with new_folder(Path(sys.argv[1])) as staging:
    (staging / "cow_1_ds_0.hdf5").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def dead() -> str:
    """The owner part of a staging name whose process has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return f"{STAGING_MARK}{socket.gethostname()}-{process.pid}-{process.pid}"


def test_the_next_try_removes_what_a_killed_one_left(tmp_path):
    target = tmp_path / "herd"
    killed = subprocess.run([sys.executable, "-c", HALF_DONE, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    with new_folder(target) as staging:
        (staging / "whole").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["herd"]


def test_what_others_are_writing_is_left_alone(tmp_path, dead):
    here, process = socket.gethostname(), os.getppid()
    others = [
        f"herd{STAGING_MARK}{here}-{process}-{process}",
        f"herd{dead.replace(here, 'another-machine')}",
        f"herd_2{dead}",
    ]
    for name in others:
        (tmp_path / name).mkdir()
    with new_folder(tmp_path / "herd"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "herd"])


def test_a_folder_that_was_being_replaced_comes_back(tmp_path, dead):
    old = tmp_path / f"herd{dead}-replaced"
    old.mkdir()
    (old / "cow_1_ds_0.hdf5").touch()
    with pytest.raises(StorageError, match="already holds something"), new_folder(tmp_path / "herd"):
        pass
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.hdf5")] == ["herd/cow_1_ds_0.hdf5"]


def test_unfinished_work_is_no_recording(tmp_path):
    main([str(tmp_path), "--subjects", "1", "--hours_per_subject", "0.01"])
    folder = tmp_path / "sim_cattle"
    (folder / f"cow_1{STAGING_MARK}here-1-1.hdf5").touch()
    assert len(find_recordings(folder)) == 3
    left = folder.rename(tmp_path / f"sim_cattle{STAGING_MARK}here-1-1")
    with pytest.raises(RecordingError, match="unfinished"):
        find_recordings(left)


def recipe(name: str, arguments: list[Path], tmp_path: Path) -> list[str]:
    """The commands of a recipe that make recordings, with every program replaced by one that only tells how it was
    called."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for program in ("aar-dist", "python", "deepspeed"):
        (programs / program).write_text(f'#!/bin/sh\necho "{program} $*" >> {tmp_path}/said\necho 0\n')
        (programs / program).chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run([ROOT / "launch" / name, *arguments], env=environment, check=True, capture_output=True, cwd=tmp_path)
    said = (tmp_path / "said").read_text().splitlines()
    assert any(line.startswith("aar-dist report") for line in said), "it goes on to the page"
    return [line for line in said if line.startswith(("aar-dist simulate", "aar-dist convert"))]


@pytest.mark.parametrize(
    ("there", "again"),
    [((), True), (("sim_cattle",), True), (("sim_horses",), True), (("sim_cattle", "sim_horses"), False)],
)
def test_the_quickstart_completes_half_a_herd(tmp_path, there, again):
    out = tmp_path / "out"
    for name in there:
        (out / "recordings" / name).mkdir(parents=True)
    told = recipe("quickstart.sh", [out], tmp_path)
    assert told == ([f"aar-dist simulate {out}/recordings --overwrite"] if again else [])


def test_the_real_recipe_converts_what_is_missing(tmp_path):
    out = tmp_path / "out"
    (out / "recordings/otariids").mkdir(parents=True)
    told = recipe("real.sh", [tmp_path / "data", out], tmp_path)
    assert [line.split()[2] for line in told] == ["cow_walking", "hapt", "motionsense"]
