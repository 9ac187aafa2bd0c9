"""One version of a stored model: verified against its manifest, and the module it rebuilds.

models/<name>/<version>/model.safetensors   fp32
                        config.yaml         enough to rebuild the module
                        card.md, metrics.json
                        manifest.json       sha256 of each file, shard set, code version (manifest.py)
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from aar_dist.base import storage
from aar_dist.base.cache import Blob
from aar_dist.base.config import ClassSpec, instantiate
from aar_dist.base.errors import CheckpointError, one_line
from aar_dist.models.backbone import Backbone
from aar_dist.objectives.base import Objective
from aar_dist.store.manifest import CARD, CONFIG, FILES, MANIFEST, METRICS, MOST_TEXT, WEIGHTS, parsed

__all__ = ["CARD", "CONFIG", "FILES", "MANIFEST", "METRICS", "WEIGHTS", "Checkpoint", "Opened", "verified"]

OWNER = "backbone."
"""What the names of a backbone's weights begin with."""


@dataclass(frozen=True)
class Opened:
    """The files of a version on this machine, verified."""

    path: Path
    held: tuple[Blob, ...] = ()
    """Of the cache, which keeps them as long as this lives."""


@dataclass(frozen=True)
class Checkpoint:
    """A version of a model."""

    name: str
    version: int
    manifest: dict[str, Any]
    where: str
    """Its address, for people."""
    open: Callable[[], Opened] = field(repr=False, compare=False)
    """Brings its files here, if they are not, and verifies them."""

    @cached_property
    def _opened(self) -> Opened:
        return self.open()

    @property
    def path(self) -> Path:
        """A folder with its files. Raises ``CheckpointError`` if one is missing or damaged, ``StorageError``."""
        return self._opened.path

    @property
    def reference(self) -> str:
        """How to ask a store for it."""
        return f"store://{self.name}@{self.version}"

    def weights(self) -> dict[str, Tensor]:
        """Parameter -> fp32 tensor on the CPU."""
        try:
            return load_file(self.path / WEIGHTS)
        except Exception as error:
            raise CheckpointError(f"{self.path / WEIGHTS} cannot be read: {one_line(error)}") from None

    def config(self) -> dict[str, Any]:
        """The configuration it was trained with. Raises ``CheckpointError`` for what is none."""
        return _object(self.path / CONFIG, yaml.safe_load)

    def metrics(self) -> dict[str, Any]:
        """The last validation. Raises ``CheckpointError`` for what is none."""
        return _object(self.path / METRICS, json.loads)

    @property
    def taught(self) -> frozenset[str]:
        """Subjects whose labels it has learned; what it started from may have learned those of others."""
        split = self.manifest.get("split") or {}
        return frozenset((*split.get("train", ()), *split.get("validation", ())))

    def objective(self) -> Objective:
        """The trained module, in eval mode on the CPU. Raises ``CheckpointError`` if the weights do not fit it."""
        module = build_objective(*specs(self.config()))
        load_weights(module, self.weights(), str(self.path))
        return module.eval()


def specs(config: Mapping[str, Any]) -> tuple[ClassSpec, ClassSpec]:
    """Model and objective of a resolved configuration; the model's longest window is the stream's. Raises
    ``CheckpointError`` where it has none."""
    try:
        model, task = config["model"], config["objective"]
        linked = {"max_window_length": config["data"]["max_window_length"]}
        return (
            ClassSpec(model["class_path"], {**linked, **model.get("init_args", {})}),
            ClassSpec(task["class_path"], task.get("init_args", {})),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{CONFIG} of the model names no model, objective and data: {one_line(error)}") from None


def build_objective(model: ClassSpec, objective: ClassSpec) -> Objective:
    """A backbone and its objective, with fresh weights from torch's generator."""
    backbone = instantiate(model, Backbone)  # type: ignore[type-abstract]
    made: Objective = instantiate(objective, Objective, backbone=backbone)  # type: ignore[type-abstract]
    return made


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Give a module these weights. Raises ``CheckpointError`` that names the first difference of architecture."""
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{where} holds another architecture: {name} is {found.get(name, 'absent')} there and "
                f"{wanted.get(name, 'absent')} here. Set model and objective as in its {CONFIG}"
            )
    module.load_state_dict(dict(weights))


def verified(path: Path) -> Checkpoint:
    """The version in this folder. Raises ``CheckpointError`` if a file is missing or damaged."""
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} is no stored model: {MANIFEST}: {one_line(error)}") from None
    manifest = parsed(text, str(path / MANIFEST))
    linked = next((file for file in manifest["files"] if (path / file).is_symlink()), None)
    if linked:
        raise CheckpointError(f"{path / linked} is a link, expected a plain file; copy the file itself there")
    check_files(path, manifest["files"])
    return Checkpoint(manifest["name"], manifest["version"], manifest, str(path), partial(Opened, path))


def check_files(path: Path, files: Mapping[str, str]) -> None:
    """Raise ``CheckpointError`` unless all files have their hash and the weights are plain numbers."""
    large = next((f for f in files if f != WEIGHTS and (path / f).is_file() and _size(path / f) > MOST_TEXT), None)
    problem = f"{path / large} has more than {MOST_TEXT} bytes" if large else storage.damage(path, dict(files))
    if problem := problem or _problem_of_weights(path / WEIGHTS):
        raise CheckpointError(f"{problem}. Publish the model again, or use another version")


def _object(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """What a small file of a version says, whoever wrote it."""
    try:
        told = parse(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read: {one_line(error)}") from None
    if not isinstance(told, dict):
        raise CheckpointError(f"{path} holds a {type(told).__name__}, expected names and values")
    return told


def _size(path: Path) -> int:
    return path.stat().st_size


def _problem_of_weights(path: Path) -> str | None:
    """Reads the header alone, which tells every name, type, shape and place."""
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no dictionary)
                if (found := file.get_slice(name).get_dtype()) != "F32":
                    return f"{path}: {name} holds {found}, expected F32"
    except Exception as error:  # safetensors has a class of its own, and what the file system says
        return f"{path} is no safetensors: {one_line(error)}"
    return None
