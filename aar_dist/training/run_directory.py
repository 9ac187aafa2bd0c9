"""The folder of one run.

config.yaml      resolved            log/rank_k.log   what each rank had to say
metrics.jsonl    every number        pictures/        originals and reconstructions
events.jsonl     what happened to it reconstructions/ the same in numbers
checkpoints/     for resuming        wandb/           what the tracker is told, and its offline copy
attempts.jsonl   what a supervisor saw of each launch (supervision/attempts.py)
finished         written last: this file alone means that the run is done
"""

import json
import logging
import os
import time
from dataclasses import dataclass
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import IO, Any

from aar_dist.base import storage
from aar_dist.base.errors import ConfigError, PassingError
from aar_dist.base.locks import locked
from aar_dist.training import checkpoints
from aar_dist.training.ranks import Ranks

log = logging.getLogger(__name__)

LOCK_PATIENCE_S = 10.0


@dataclass(frozen=True)
class RunDirectory:
    """Paths of a run, and what is true of it."""

    root: Path

    @classmethod
    def of(cls, out: str) -> "RunDirectory":
        """Raises ``ConfigError`` without a name."""
        if not out:
            raise ConfigError("out is missing: name the run directory with --out DIR")
        return cls(Path(out).resolve())

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON line for each step."""
        return self.root / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """What happened to the run: steps left out, spikes, hangs."""
        return self.root / "events.jsonl"

    @property
    def log(self) -> Path:
        """What each rank had to say."""
        return self.root / "log"

    @property
    def checkpoints(self) -> Path:
        """DeepSpeed's own, for resuming."""
        return self.root / "checkpoints"

    @property
    def pictures(self) -> Path:
        """Reconstructions."""
        return self.root / "pictures"

    def finished(self) -> dict[str, Any] | None:
        """What the finished run left behind; None while it is not done."""
        file = self.root / "finished"
        if not file.exists():
            return None
        said: dict[str, Any] = json.loads(file.read_text())
        return said

    def finish(self, said: dict[str, Any]) -> None:
        """Mark the run as done."""
        storage.write_json(self.root / "finished", said)

    def holds(self, step: int) -> bool:
        """True if there is a complete checkpoint of this step."""
        return self.checkpoints / checkpoints.name_of(step) in checkpoints.complete(self.checkpoints)

    def prepare(self, config: str) -> None:
        """Make the folders, remove unfinished work of a killed run and write the configuration (rank 0)."""
        with storage.one_line_errors(self.root):
            for folder in (self.checkpoints, self.pictures, self.root / "wandb"):
                folder.mkdir(parents=True, exist_ok=True)
        storage.sweep(self.root)
        storage.sweep(self.checkpoints)
        storage.write_text(self.config, config)

    def lock(self) -> IO[str]:
        """Hold the run directory for this process (rank 0). A lock dies with its owner.

        Raises:
            PassingError: another process holds it.
            StorageError: nothing can be locked there.
        """
        with storage.one_line_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            file = open(self.root / ".lock", "a+")  # noqa: SIM115 (held as long as the run)
        for _ in range(int(LOCK_PATIENCE_S / 0.5)):
            if locked(file):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {os.uname().nodename}")
                file.flush()
                return file
            time.sleep(0.5)  # a killed launch needs a moment until its ranks are gone
        file.seek(0)
        raise PassingError(f"{self.root} is in use by {file.read()}; wait for it, end it, or choose another --out")

    def held(self) -> str:
        """Which process holds the run directory; empty if none does."""
        try:
            with open(self.root / ".lock", "r+") as file:
                if not locked(file):
                    return file.read() or "another process"
        except FileNotFoundError:
            pass
        return ""

    def open_log(self, ranks: Ranks) -> None:
        """Send this rank's log messages to its own file, those kept since the start first."""
        self.log.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(self.log / f"rank_{ranks.rank}.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        for keeper in logging.root.handlers:
            if isinstance(keeper, MemoryHandler):
                keeper.setTarget(handler)
                keeper.flush()
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
        logging.getLogger("aar_dist").setLevel(logging.INFO)
        log.info("rank %d is process %d on %s", ranks.rank, os.getpid(), os.uname().nodename)
