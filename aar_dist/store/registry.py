"""A store: ``models/<name>/<version>`` below a folder.

publish(name, weights, …) -> stage beside -> rename to the next free number
resolve("store://name@latest" | "store://name@3" | a folder) -> Checkpoint, verified
"""

import contextlib
import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from aar_dist.base import storage
from aar_dist.base.errors import CheckpointError
from aar_dist.store.checkpoint import CARD, CONFIG, MANIFEST, METRICS, WEIGHTS, Checkpoint, verified

SCHEME = "store://"
REFERENCE = re.compile(r"store://(?P<name>[\w.-]+)@(?P<version>latest|\d+)")


@dataclass(frozen=True)
class Store:
    """Trained models below one folder."""

    root: Path

    def folder(self, name: str) -> Path:
        """Where the versions of a model stand."""
        return self.root / "models" / name

    def names(self) -> list[str]:
        """Models with at least one version."""
        return sorted(p.name for p in self.root.glob("models/*") if self.versions(p.name))

    def versions(self, name: str) -> list[int]:
        """Numbers of the published versions, rising."""
        return sorted(int(p.name) for p in self.folder(name).glob("*") if p.name.isdecimal())

    def publish(
        self,
        name: str,
        weights: Mapping[str, Tensor],
        *,
        config: str,
        card: str,
        metrics: Mapping[str, Any],
        about: Mapping[str, Any],
    ) -> Checkpoint:
        """Add a version: whole, or not at all, under a number that nobody else gets.

        Args:
            weights: Parameter -> tensor; stored as fp32.
            config: The resolved configuration (YAML), enough to rebuild the module.
            card: Markdown, for people.
            metrics: The last validation.
            about: Further lines of the manifest: shard set, step.
        """
        folder = self.folder(name)
        _sweep_killed(folder)
        staging = storage.staging_name(folder / "new")
        with storage.one_line_errors(folder, staging):
            staging.mkdir(parents=True)
            (staging / WEIGHTS).write_bytes(_safetensors(weights))
            (staging / CONFIG).write_text(config)
            (staging / CARD).write_text(card)
            (staging / METRICS).write_text(json.dumps(metrics, indent=1) + "\n")
            files = storage.hash_tree(staging)
            while True:
                number = max(self.versions(name), default=0) + 1
                manifest = {"name": name, "version": number, "code": code_version(), **about, "files": files}
                (staging / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
                try:
                    return verified(storage.publish(staging, folder / str(number)))
                except FileExistsError:
                    continue  # another writer was first

    def find(self, name: str, about: Mapping[str, Any]) -> Checkpoint | None:
        """The newest whole version whose manifest says all of this."""
        for number in reversed(self.versions(name)):
            with contextlib.suppress(CheckpointError):
                made = verified(self.folder(name) / str(number))
                if all(made.manifest.get(key) == value for key, value in about.items()):
                    return made
        return None

    def get(self, name: str, which: str = "latest") -> Checkpoint:
        """A version of a model. Raises ``CheckpointError`` if there is none, or if it is damaged."""
        versions = self.versions(name)
        if not versions:
            there = ", ".join(self.names()) or "nothing"
            raise CheckpointError(f"store {self.root} has no model {name!r}; it has {there}")
        number = versions[-1] if which == "latest" else int(which)
        if number not in versions:
            raise CheckpointError(
                f"store {self.root} has no version {number} of {name!r}; it has {', '.join(map(str, versions))}"
            )
        return verified(self.folder(name) / str(number))


def resolve(reference: str, store: str | Path | None = None) -> Checkpoint:
    """The checkpoint meant by ``store://name@latest``, ``store://name@3`` or the folder of a version.

    Raises:
        CheckpointError: no such thing, or a damaged one.
    """
    if not reference.startswith(SCHEME):
        return verified(Path(reference))
    match = REFERENCE.fullmatch(reference)
    if not match:
        raise CheckpointError(f"{reference}: expected store://name@latest or store://name@3")
    if store is None:
        raise CheckpointError(f"{reference}: in which store? Set store.path, or give the folder of the version")
    return Store(Path(store)).get(match["name"], match["version"])


def _sweep_killed(folder: Path) -> None:
    """Remove what publishers of this machine left behind when they were killed; others may be at work beside us."""
    for left in folder.glob(f"*{storage.STAGING_MARK}*"):
        host, pid, _ = left.name.rpartition(storage.STAGING_MARK)[2].rsplit("-", 2)
        if host == socket.gethostname() and not _lives(int(pid)):
            storage.remove(left)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _safetensors(weights: Mapping[str, Tensor]) -> bytes:
    return save({name: value.detach().float().cpu().contiguous().clone() for name, value in weights.items()})


def code_version() -> str:
    """Version of this package."""
    try:
        return version("aar_dist")
    except PackageNotFoundError:
        return "unknown"
