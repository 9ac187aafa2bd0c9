"""Peers in processes of their own, in an environment of their own (make bench-peers)."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
PEERS = ("torch", "webdataset", "litdata", "mosaic")


def available() -> bool:
    """True where `make bench-peers` has run."""
    return PYTHON.is_file()


class Peer:
    """One library, started and ready to read when told."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        serve = Path(__file__).parent / "peers" / "serve.py"
        command = [str(PYTHON), "-W", "ignore", str(serve), f"peer_{name}", json.dumps(settings)]
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env
        )
        self.readers: Sequence[str] = self._answer()

    def read(self, reader: str, seconds: float) -> dict[str, float]:
        """segments, cpu_s and wall_s of about so long."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{reader} {seconds}\n")
        self._process.stdin.flush()
        answer: dict[str, float] = self._answer()
        return answer

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._process.args)}: ended with {self._process.wait()}")  # type: ignore[arg-type]
        return json.loads(line)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
