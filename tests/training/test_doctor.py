"""`aar-dist doctor`: one machine, and hosts that ssh reaches or not (an ssh of our own, on this machine)."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from aar_dist.training.doctor import hardware, services, software
from aar_dist.training.doctor.agent import Listener, check, send
from aar_dist.training.doctor.command import main
from aar_dist.training.doctor.examine import Found
from aar_dist.training.doctor.finding import Wanted, ok, problem, warning, worst
from aar_dist.training.doctor.launch import launch
from aar_dist.training.doctor.table import grouped, summary

ROOT = Path(__file__).parents[2]
DOCTOR = [sys.executable, "-c", "from aar_dist.cli import door; door()", "doctor"]
SSH = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
name=$1
shift 2
case $name in
    locked) echo "root@locked: Permission denied (publickey)." >&2; exit 255 ;;
    bare) echo "sh: python: No such file or directory" >&2; exit 127 ;;
esac
echo "Welcome to $name"
exec sh -c "$*"
"""


@pytest.fixture(autouse=True)
def _cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)


def findings(checks) -> dict:
    return {each.check: each for each in checks}


def test_this_machine_as_json(shard_set, tmp_path, capsys):
    main(["--json", "--run", str(tmp_path), "--shards", str(shard_set), "--port", "0"])
    said = json.loads(capsys.readouterr().out)
    assert said["state"] in ("ok", "warning")
    rows = {row["check"]: row for row in said["findings"]}
    assert rows.keys() >= {
        "versions", "code", "device", "compiler", "op cache", "cores", "memory", "shared memory", "disk", "port",
        "W&B", "shards",
    }  # fmt: skip
    assert all(row.keys() == {"host", "check", "state", "found", "remedy"} for row in said["findings"])
    assert "torch 2" in rows["versions"]["found"]


def test_a_problem_is_exit_code_1_and_says_what_to_do(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["--shards", str(tmp_path / "none"), "--port", "0"])
    assert left.value.code == 1
    said = capsys.readouterr().out
    assert "problem" in said
    assert "-> give every host the same shard set" in said
    assert said.splitlines()[-1].startswith("1 problem(s)")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--hostfile", "none"], "error: hostfile none: there is no such file"),
        (["--hostfil", "x"], "error: --hostfil: no such flag; did you mean --hostfile?"),
    ],
)
def test_bad_input_is_one_line(argv, said, capsys):
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith(said)


def test_hosts_are_asked_over_ssh_and_compared(tmp_path):
    """Two that answer, one that wants a password, one without our Python; they share this machine."""
    bin_, hosts = tmp_path / "bin", tmp_path / "hosts"
    bin_.mkdir()
    (bin_ / "ssh").write_text(SSH)
    (bin_ / "ssh").chmod(0o755)
    hosts.write_text("".join(f"{name} slots=1\n" for name in ("one", "two", "locked", "bare")))
    env = os.environ | {"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    with socket.create_server(("", 0)) as free:
        port = str(free.getsockname()[1])
    done = subprocess.run(
        [*DOCTOR, "--hostfile", str(hosts), "--json", "--port", port, "--run", str(tmp_path / "run" / "1")],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    rows = {(row["host"], row["check"]): row for row in json.loads(done.stdout)["findings"]}
    assert rows["locked", "ssh"]["remedy"].startswith("ssh-copy-id locked")
    assert rows["bare", "ssh"]["remedy"].startswith("the same environment and code")
    for name in ("one", "two"):
        assert rows[name, "ssh"]["state"] == "ok"
        assert rows[name, "bandwidth"]["found"].endswith("bit/s")
    assert rows["two", "alike"]["state"] == rows["two", "clock"]["state"] == "ok"
    assert rows["two", "shared"]["found"] == f"{tmp_path / 'run' / '1'} is that of one"
    assert not (tmp_path / "run").exists()
    assert rows["two", "rank 0"]["found"].endswith(f":{port} is reached")
    assert {host for host, check in rows if check == "port"} == {"one"}


def test_a_check_that_fails_is_a_finding(monkeypatch):
    def broken(wanted: Wanted) -> Iterator:
        yield ok("versions", "all")
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(software, "software", broken)
    monkeypatch.setattr(services, "wandb", lambda: ok("W&B", ""))
    found = check(Wanted(port=0))
    assert found[0] == ok("versions", "all")
    assert (found[1].state, found[1].found) == ("problem", "ZeroDivisionError: by zero")
    assert len(found) > 5


def test_a_port_in_use_and_a_disk_that_refuses(tmp_path):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        assert findings(hardware.hardware(Wanted(port=port)))["port"].found == f"{port} is in use"
    (tmp_path / "file").touch()
    assert findings(hardware.hardware(Wanted(run=str(tmp_path / "file"))))["disk"].state == "problem"
    assert "port" not in findings(hardware.hardware(Wanted(first=False)))


def test_more_threads_than_cores_are_a_warning(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert findings(hardware.hardware(Wanted(slots=2)))["cores"].state == "warning"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert findings(hardware.hardware(Wanted(slots=2)))["cores"].found == "4 cores, 2 rank(s) of 2 thread(s)"


def test_a_host_that_knows_its_name_as_the_loopback(monkeypatch):
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "127.0.1.1")
    assert "own name" not in findings(hardware.hardware(Wanted()))
    assert findings(hardware.hardware(Wanted(hosts=2)))["own name"].state == "warning"


def test_a_helper_that_is_not_compiled_and_no_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = findings(software.software(Wanted()))
    assert found["op cache"].remedy == "aar-dist doctor --warm does it now"
    assert found["compiler"].state == "problem"
    assert found["compiler"].remedy.startswith("Install g++")


class Server(BaseHTTPRequestHandler):
    """Knows the key "good" alone."""

    def do_POST(self):
        import base64

        key = base64.b64decode(self.headers["Authorization"].split()[1]).decode()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if key == "api:good" else 401)
        self.end_headers()
        self.wfile.write(b'{"data": {"viewer": {"username": "ann"}}}')

    def log_message(self, *_):
        pass


def test_wandb_is_asked_for_the_key_which_is_never_shown(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    assert "no key" in services.wandb(url).found
    for key, said in [("good", ok("W&B", f"{url} knows the key as ann")), ("secret-bad", None)]:
        monkeypatch.setenv("WANDB_API_KEY", key)
        found = services.wandb(url)
        assert key not in found.found + found.remedy or key == "good"
        assert found == said or (said is None and found.state == "problem" and "refuses the key (401)" in found.found)
    server.shutdown()
    server.server_close()
    assert services.wandb(url).state == "warning"


def test_wandb_that_accepts_and_never_answers(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "good")
    monkeypatch.setattr(services, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = services.wandb(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert (found.state, found.found.split()[-3:]) == ("warning", ["does", "not", "answer"])


def test_bytes_are_counted_where_they_arrive():
    listener = Listener(0)
    assert send("127.0.0.1", listener.port, 0.05) > 1e6
    assert send("127.0.0.1", listener.port, 0) == 0


def test_a_blank_line_of_the_launchers_file_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DS_ENV_FILE", raising=False)
    monkeypatch.setenv("AAR_DIST_A", "p")  # the first by name: of many some are told
    assert "AAR_DIST_A" in findings(launch())["environment"].found
    Path(".deepspeed_env").write_text("A=1\n\nB=2\n")
    (first, *_) = [each for each in launch() if each.check == "environment"]
    assert first.state == "problem"
    assert "line 2" in first.found


def test_what_all_hosts_share_is_one_row():
    found = [Found("here", ok("pdsh", "p"))]
    found += [Found(host, finding) for host in ("a", "b") for finding in (ok("ssh", "s"), ok("code", "1"))]
    found += [Found("b", problem("disk", "full", "free space")), Found("a", warning("disk", "slow", "mend"))]
    assert [(finding.check, where) for finding, where in grouped(found)] == [
        ("pdsh", "here"), ("ssh", "all"), ("code", "all"), ("disk", "b"), ("disk", "a")
    ]  # fmt: skip
    assert worst([each.finding for each in found]) == "problem"
    assert summary(found) == "1 problem(s), 1 warning(s): a launch would fail"
