"""What a run leaves for its mirror in ``RUN/wandb``, beside metrics.jsonl and the pictures: all that is ever sent.

run_id            the id of the run, made once: the same through all restarts
attempts.jsonl    a line for each launch, when, where and with which code, and one for how it ended
alerts.jsonl      a line for each message to the people who watch; any thread of any rank may add one
shards.json       the shard sets that are read, and the hash of each shard
sent.json         what the server was sent that it does not number itself
"""

import fcntl
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from aar_dist.base import json_lines, storage
from aar_dist.base.locks import locked

Level = Literal["info", "warn", "error"]
End = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One launch of a run."""

    number: int
    """From 1."""
    started_s: float
    """Since 1970."""
    host: str
    world_size: int
    from_step: int
    val_every: int
    """Steps between validations, as the loop keeps it."""
    total_steps: int
    code: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Alert:
    """A message to the people who watch."""

    title: str
    text: str
    level: Level
    at_s: float
    """Since 1970."""


@dataclass(frozen=True)
class Record:
    """The files of one run, for who writes them and who sends them."""

    root: Path
    """The run directory."""

    @property
    def folder(self) -> Path:
        """Of the mirror."""
        return self.root / "wandb"

    @property
    def metrics(self) -> Path:
        """One line or more for each step."""
        return self.root / "metrics.jsonl"

    @property
    def finished(self) -> dict[str, Any] | None:
        """What the finished run left behind."""
        return _read_json(self.root / "finished")

    @property
    def _attempts(self) -> Path:
        return self.folder / "attempts.jsonl"

    def picture(self, step: int) -> Path:
        """Reconstructions of a validation, drawn."""
        return self.root / "pictures" / f"step_{step:08d}.png"

    def table(self, step: int) -> Path:
        """The same in numbers."""
        return self.root / "reconstructions" / f"step_{step:08d}.json"

    def run_id(self) -> str:
        """The id of the run."""
        file = self.folder / "run_id"
        if file.exists() and (found := file.read_text().strip()):
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        made = uuid.uuid4().hex[:8]
        storage.write_text(file, made)
        return made

    def attempts(self) -> list[Attempt]:
        """All launches so far."""
        return [Attempt(**one) for one in json_lines.read(self._attempts) if "started_s" in one]

    def end_of(self, number: int) -> End | None:
        """How this launch ended; None while it goes on, or if it was killed."""
        said = [one["ended"] for one in json_lines.read(self._attempts) if "ended" in one and one["number"] == number]
        return said[-1] if said else None

    def add_attempt(self, attempt: Attempt) -> None:
        """A launch begins."""
        json_lines.append(self._attempts, asdict(attempt))

    def end_attempt(self, number: int, how: End) -> None:
        """The launch ends."""
        json_lines.append(self._attempts, {"number": number, "ended": how, "at_s": round(time.time(), 3)})

    def alerts(self) -> list[Alert]:
        """All messages so far."""
        return [Alert(**one) for one in json_lines.read(self.folder / "alerts.jsonl")]

    def add_alert(self, title: str, text: str, level: Level) -> None:
        """Leave a message; whoever sends for this run sends it."""
        json_lines.append(self.folder / "alerts.jsonl", asdict(Alert(title, text, level, round(time.time(), 3))))

    def shard_sets(self) -> list[dict[str, Any]]:
        """``url``, ``identity``, ``shards`` (name -> sha256) of each."""
        found: list[dict[str, Any]] = (_read_json(self.folder / "shards.json") or {}).get("sets", [])
        return found

    def set_shard_sets(self, sets: Sequence[Mapping[str, Any]]) -> None:
        """What is read from now on."""
        storage.write_json(self.folder / "shards.json", {"sets": list(sets)})

    def sent(self) -> dict[str, Any]:
        """What the server was sent: number of alerts, artifacts by name."""
        return {"alerts": 0, "artifacts": {}} | (_read_json(self.folder / "sent.json") or {})

    def set_sent(self, said: Mapping[str, Any]) -> None:
        """Remember it."""
        storage.write_json(self.folder / "sent.json", dict(said))

    def take_turn(self) -> IO[str] | None:
        """Become the only one that sends for this run, until the file is closed or this process ends; None while
        another is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = open(self.folder / ".sending", "a+")  # noqa: SIM115 (held as long as it sends)
        if not locked(file):
            file.close()
            return None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        return file

    def whose_turn(self) -> str:
        """Who sends."""
        return (self.folder / ".sending").read_text() or "another process"

    def trains(self) -> bool:
        """Whether a launch holds the run directory now."""
        try:
            file = open(self.root / ".lock")  # noqa: SIM115 (closed below)
        except OSError:
            return False
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return found
