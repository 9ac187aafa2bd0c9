"""Which code ran: version, commit, and a hash that tells two copies apart where there is no commit."""

import hashlib
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import aar_dist

PACKAGE = Path(aar_dist.__file__).parent
GIT_PATIENCE_S = 10.0
SHORT = 12
"""Hex digits of a hash that people are shown."""


@dataclass(frozen=True)
class CodeVersion:
    """The code of a launch."""

    version: str
    """Of the package."""
    hash: str
    """Of the package's sources, as the ranks compare it at the start."""
    commit: str | None
    """None where the package does not stand in a repository of its own."""
    dirty: bool | None
    """Whether tracked files differ from the commit."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def code_version(package: Path = PACKAGE) -> CodeVersion:
    """The code in this folder."""
    try:
        number = version("aar_dist")
    except PackageNotFoundError:
        number = "unknown"
    commit, dirty = _commit(package)
    return CodeVersion(number, code_hash(package), commit, dirty)


def code_hash(package: Path = PACKAGE) -> str:
    """Hash of a package's sources, whatever their order, dates and place. Takes 15 ms."""
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:SHORT]


def _commit(package: Path) -> tuple[str | None, bool | None]:
    """Commit, and whether it was changed since. A package that is installed somewhere below another repository is no
    part of it: git does not track it there."""
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    commit = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changed is None else bool(changed)


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None where there is no git, or no repository, or it complains."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=GIT_PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
