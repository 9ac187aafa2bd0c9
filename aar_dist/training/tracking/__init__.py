"""Weights & Biases, for people to watch: never needed to run, and never in the way of a step.

    run -> metrics.jsonl, pictures/, reconstructions/, wandb/{attempts,alerts,shards}   (record.py: the truth)
                  \\-> a follower process beside rank 0 -> the server, or an offline folder       (follower.py)
                  \\-> `aar-dist sync RUN`, whenever there is a server                                (sync.py)

A rank writes files and nothing else. Whoever sends asks the server what it has, and goes on from there.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from aar_dist.base.addresses import without_secrets
from aar_dist.base.code import PACKAGE, code_version
from aar_dist.base.errors import one_line
from aar_dist.base.ssh import python_path
from aar_dist.training.supervision.leftovers import MARK
from aar_dist.training.tracking.config import TrackingConfig, mode_of
from aar_dist.training.tracking.privacy import environment, scrubbed
from aar_dist.training.tracking.record import Attempt, End, Level, Record

__all__ = ["Level", "NoTracker", "Run", "Tracker", "begin", "run_id", "start"]


class Run(Protocol):
    """What a run may say to the people who watch."""

    def alert(self, title: str, text: str, level: Level = "warn") -> None:
        """Tell them. Returns at once, from any thread, and never raises."""


class NoTracker:
    """Leaves messages for rank 0's follower; the tracker of all other ranks."""

    def __init__(self, root: Path) -> None:
        self.record = Record(root)

    def alert(self, title: str, text: str, level: Level = "warn") -> None:
        """Leave a message."""
        with contextlib.suppress(OSError):  # a full disk is told of elsewhere
            self.record.add_alert(title, without_secrets(text), level)


def run_id(root: Path) -> str:
    """The id of the run in this directory, made once: the same through all restarts."""
    return Record(root).run_id()


def begin(
    root: Path,
    *,
    world_size: int,
    from_step: int,
    val_every: int,
    total_steps: int,
    shards: Sequence[Mapping[str, Any]],
) -> Attempt:
    """Write down that a launch begins, with which code and which shard sets (rank 0)."""
    record = Record(root)
    attempt = Attempt(
        number=len(record.attempts()) + 1,
        started_s=round(time.time(), 3),
        host=socket.gethostname(),
        world_size=world_size,
        from_step=from_step,
        val_every=val_every,
        total_steps=total_steps,
        code=code_version().to_dict(),
        environment=environment(),
    )
    record.add_attempt(attempt)
    record.set_shard_sets(scrubbed(shards))
    return attempt


def start(config: TrackingConfig, root: Path, attempt: Attempt, *, warn: Callable[[str], None]) -> "Tracker":
    """The tracker of rank 0; use it as a context manager, so that it hears how the run ends.

    Args:
        warn: Told of failures; called from another thread.
    """
    return Tracker(config, root, attempt, warn)


class Tracker(NoTracker):
    """Starts the follower, passes on what it says, and tells it that the run has left."""

    def __init__(self, config: TrackingConfig, root: Path, attempt: Attempt, warn: Callable[[str], None]) -> None:
        super().__init__(root)
        self.config, self.attempt, self.warn = config, attempt, warn
        self._connected = self._failed = False
        self._process = _follower(root, mode_of(config), attempt.number)
        if self._process:
            threading.Thread(target=self._listen, daemon=True, name="tracking").start()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell how the run ended, and wait a little until it is sent."""
        how = self._how(error)
        if how == "failed" and isinstance(error, Exception):
            self.alert("run failed", f"{self.record.root.name}: {one_line(error)[:500]}", "error")
        elif how == "finished":
            said = self.record.finished or {}
            self.alert(
                "run finished", f"{self.record.root.name}: {said.get('model')} after {said.get('step')} steps", "info"
            )
        with contextlib.suppress(OSError):
            self.record.end_attempt(self.attempt.number, how)
        self._leave()

    def _how(self, error: BaseException | None) -> End:
        if error is not None:
            return "failed"
        return "finished" if self.record.finished else "stopped"

    def _leave(self) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            if not self._failed:
                process.wait(self.config.finish_timeout_s)
        except subprocess.TimeoutExpired:
            what = "W&B has not answered yet" if not self._connected else "W&B is still being sent the end of the run"
            self.warn(
                f"{what}; process {process.pid} goes on for a moment and ends by itself, and "
                f"aar-dist sync {self.record.root} sends what it could not"
            )

    def _listen(self) -> None:
        assert self._process
        assert self._process.stdout
        for line in self._process.stdout:
            what, _, text = line.strip().partition(": ")
            self._connected = self._connected or what == "connected"
            if what == "failed":
                self._failed = True
                self.warn(
                    f"{text}. Training goes on, and it is tried again now and then; "
                    f"aar-dist sync {self.record.root} sends everything later"
                )


def _follower(root: Path, mode: str, attempt: int) -> subprocess.Popen[str] | None:
    if mode == "disabled":
        return None
    paths = python_path(str(PACKAGE.parent))
    (root / "log").mkdir(parents=True, exist_ok=True)
    with open(root / "log" / "wandb.log", "a") as told:
        return subprocess.Popen(
            [sys.executable, "-m", "aar_dist.training.tracking.follower", str(root), mode, str(attempt)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            # Without the mark: a supervisor that ends the rest of an attempt leaves it to send what there is.
            env={name: value for name, value in os.environ.items() if name != MARK} | {"PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C is for the run; the follower sees it end
        )
