"""A small disk of a test's own: a tmpfs that only programs started with its prefix see under its path."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Disk:
    """A tmpfs in a mount namespace that a sleeping process keeps."""

    path: Path
    """Where the programs of the namespace see it."""
    inside: Path
    """The same folder, as anybody sees it."""
    prefix: tuple[str, ...]
    """In front of a command that is to see it."""


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Disk]:
    """A disk of ``size`` bytes at ``path``."""
    path.mkdir()
    root = os.geteuid() == 0
    unshare = ["unshare", "--mount"] if root else ["unshare", "--map-root-user", "--mount"]
    script = f"mount -t tmpfs -o size={size} none {path} && echo ready && exec sleep 600"
    keeper = subprocess.Popen([*unshare, "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "ready\n"
        enter = (
            "nsenter",
            "--target",
            str(keeper.pid),
            "--mount",
            *(() if root else ("--user", "--preserve-credentials")),
        )
        yield Disk(path, Path(f"/proc/{keeper.pid}/root{path}"), (*enter, "--"))
    finally:
        keeper.kill()
        keeper.wait()
