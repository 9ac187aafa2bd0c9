"""Peers in processes of their own, in environments of their own (make bench-peers)."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[1]
LOADERS, MODELS = (ROOT / ".venv-peers" / name / "bin" / "python" for name in ("loaders", "models"))
PEERS = ("torch", "webdataset", "litdata", "mosaic")


def available(python: Path) -> bool:
    """True where `make bench-peers` has made this environment."""
    return python.is_file()


class Peer:
    """One library, started; ready when its readers are known."""

    def __init__(
        self,
        module: str,
        settings: dict[str, Any],
        *,
        python: Path | str = LOADERS,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            module: Beside ``peers/serve.py``; its ``readers(settings)`` are served.
            python: Of the environment it runs in.
            env: Further variables; ``CORE`` pins it to that core.
        """
        self.module = module
        serve = Path(__file__).parent / "peers" / "serve.py"
        command = [str(python), "-W", "ignore", str(serve), module, json.dumps(settings)]
        ours = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"} | dict(env or {})
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process is)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, env=ours
        )

    @cached_property
    def readers(self) -> Sequence[str]:
        """Names of what it reads; waits until it is ready."""
        names: Sequence[str] = self.answer()
        return names

    def read(self, reader: str, seconds: float) -> dict[str, float]:
        """segments, cpu_s and wall_s of about so long, at least one batch."""
        self.ask(reader, seconds)
        answer: dict[str, float] = self.answer()
        return answer

    def ask(self, reader: str, seconds: float) -> None:
        """Let it read, and do not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{reader} {seconds}\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """What it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            raise RuntimeError(f"{self.module} ended with {code}:\n{self._said.read()[-2000:]}")
        return json.loads(line)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
