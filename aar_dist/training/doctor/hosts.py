"""The doctor's way to other hosts: ssh as DeepSpeed uses it, one connection each, all at once.

name -> Patient -> ask({"do": …}) -> answer
"""

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from aar_dist.base.carried import of_launcher
from aar_dist.base.ssh import AT_ONCE, ssh, there
from aar_dist.training.doctor.agent import READY
from aar_dist.training.doctor.launch import launcher_environment

T = TypeVar("T")
R = TypeVar("R")

START_S, ANSWER_S, FAREWELL_S = 90.0, 60.0, 5.0
"""Longest wait for a host to start Python, for an answer, for it to end."""


class Unreachable(Exception):
    """A host that cannot be asked: why, in one line."""


class Patient:
    """One host and its agent. Raises ``Unreachable`` if it does not start."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            ssh(name, agent()),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._wait_ready()

    def ask(self, question: dict[str, Any], timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """The answer. Raises ``Unreachable``."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise Unreachable(self._why("the connection is gone")) from None
        said: dict[str, Any] = json.loads(self._line(timeout_s))
        if "error" in said:
            raise Unreachable(str(said["error"]))
        return said

    def close(self) -> None:
        """End the agent, and wait until it has given back its ports."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(FAREWELL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_ready(self) -> None:
        try:
            while self._line(START_S).strip() != READY:
                pass  # a greeting of the login shell
        except Unreachable:
            self._process.kill()
            self._process.wait()
            raise

    def _line(self, timeout_s: float) -> str:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise Unreachable(f"no answer within {timeout_s:g} s") from None
        if line is None:
            raise Unreachable(self._why("ssh ended"))
        return line

    def _why(self, otherwise: str) -> str:
        self._listener.join(1.0)
        said = [line for line in self._errors if line.strip()]
        return said[-1].strip()[:200] if said else otherwise

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors.append(line)


def agent() -> list[str]:
    """The command of the agent, which sees what DeepSpeed would export to ranks."""
    file = launcher_environment()
    return there("aar_dist.training.doctor.agent", variables=of_launcher(file.read_text()) if file else {})


def on_all(work: Callable[[T], R], items: Sequence[T]) -> list[R | Unreachable]:
    """``work`` for every item at once; what made one unreachable in its place."""

    def tried(item: T) -> R | Unreachable:
        try:
            return work(item)
        except Unreachable as error:
            return error

    with ThreadPoolExecutor(min(AT_ONCE, len(items)) or 1) as pool:
        return list(pool.map(tried, items))


def clock_ahead_s(patient: Patient) -> float:
    """How far a host's clock is ahead of ours [s]; the quickest of three answers is the surest."""
    best = (float("inf"), 0.0)
    for _ in range(3):
        asked = time.time()
        said = patient.ask({"do": "clock"})["time"]
        now = time.time()
        best = min(best, (now - asked, said - (asked + now) / 2))
    return best[1]
