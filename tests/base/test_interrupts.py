"""Asked to stop: one line, nothing left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from aar_dist.base.children import run_bound

COMMAND = """
import time
from aar_dist.base.errors import user_entry
from aar_dist.base.interrupts import resumes, sigterm_kept

@user_entry
@resumes
def main():
    import signal
    with sigterm_kept():
        signal.signal(signal.SIGTERM, lambda number, frame: print("a library's own stack"))
    print("ready", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        raise KeyboardInterrupt  # as native code does
main()
"""


def heard() -> None:
    """Whoever runs these tests in the background of a shell ignores Ctrl-C, and so would what they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_one_line_says_that_nothing_is_lost(number, code, rank):
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND], env=os.environ | {"RANK": rank}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=heard,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    said, told = process.communicate(timeout=30)
    line = "interrupted: nothing that was finished is lost, and the same command goes on\n"
    assert (process.returncode, said, told) == (code, "", line if rank == "0" else "")


def test_a_handler_of_before_is_there_again():
    from aar_dist.base.interrupts import resumes

    before = signal.getsignal(signal.SIGTERM)
    assert resumes(lambda: 5)() == 5
    assert signal.getsignal(signal.SIGTERM) == before


def alive(pid: int) -> bool:
    """False of a process that is gone, or that nobody has waited for."""
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("children", [False, True])
def test_what_a_command_started_ends_with_whom_it_was_started_for(tmp_path, children):
    """As Ray's worker starts DeepSpeed's launcher, and that one the ranks; Ray kills the worker's children as well."""
    inner = "import subprocess; subprocess.run(['sh', '-c', 'echo $$ > rank; exec sleep 60'])"
    outer = (
        "import sys; from aar_dist.base.children import run_bound; "
        f"run_bound([sys.executable, '-c', {inner!r}], open('log', 'wb'))"
    )
    process = subprocess.Popen([sys.executable, "-c", outer], cwd=tmp_path)
    deadline = time.monotonic() + 30
    while not ((tmp_path / "rank").exists() and (tmp_path / "rank").read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    rank = int((tmp_path / "rank").read_text())
    assert alive(rank)
    started = psutil.Process(process.pid).children() if children else []
    for one in (process, *started):
        one.kill()
    process.wait()
    while alive(rank):
        assert time.monotonic() < deadline, "it goes on without anybody"
        time.sleep(0.02)


def test_a_command_says_how_it_ended(tmp_path):
    with open(tmp_path / "log", "wb") as log:
        assert run_bound(["sh", "-c", "echo said; echo told >&2; exit 7"], log) == 7
    assert (tmp_path / "log").read_text() == "said\ntold\n"


def test_ctrl_c_while_a_program_is_imported_is_one_line(tmp_path):
    (tmp_path / "slow.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-c", "from aar_dist.base.errors import run_door; run_door('slow')"], cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "interrupted: nothing had begun\n"
    assert process.returncode == 130
