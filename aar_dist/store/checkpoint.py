"""One version of a stored model: a folder, verified against its manifest, and the module it rebuilds.

models/<name>/<version>/model.safetensors   fp32
                        config.yaml         enough to rebuild the module
                        card.md, metrics.json
                        manifest.json       sha256 of each file, shard set, code version
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from aar_dist.base import storage
from aar_dist.base.config import ClassSpec, instantiate
from aar_dist.base.errors import CheckpointError, one_line
from aar_dist.models.backbone import Backbone
from aar_dist.objectives.base import Objective

WEIGHTS, CONFIG, CARD, METRICS, MANIFEST = (
    "model.safetensors",
    "config.yaml",
    "card.md",
    "metrics.json",
    "manifest.json",
)
FILES = (WEIGHTS, CONFIG, CARD, METRICS)
OWNER = "backbone."
"""What the names of a backbone's weights begin with."""


@dataclass(frozen=True)
class Checkpoint:
    """A version whose files have been verified."""

    path: Path
    name: str
    version: int
    manifest: dict[str, Any]

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
        """The configuration it was trained with."""
        settings: dict[str, Any] = yaml.safe_load((self.path / CONFIG).read_text())
        return settings

    def metrics(self) -> dict[str, Any]:
        """The last validation."""
        values: dict[str, Any] = json.loads((self.path / METRICS).read_text())
        return values

    def objective(self) -> Objective:
        """The trained module, in eval mode on the CPU. Raises ``CheckpointError`` if the weights do not fit it."""
        module = build_objective(*specs(self.config()))
        load_weights(module, self.weights(), str(self.path))
        return module.eval()


def specs(config: Mapping[str, Any]) -> tuple[ClassSpec, ClassSpec]:
    """Model and objective of a resolved configuration; the model's longest window is the stream's."""
    model, task = config["model"], config["objective"]
    linked = {"max_window_length": config["data"]["max_window_length"]}
    return (
        ClassSpec(model["class_path"], {**linked, **model.get("init_args", {})}),
        ClassSpec(task["class_path"], task.get("init_args", {})),
    )


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
        manifest = json.loads((path / MANIFEST).read_text())
        files = manifest["files"]
        name, version = manifest["name"], int(manifest["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no stored model: {MANIFEST}: {one_line(error)}") from None
    missing = [file for file in FILES if file not in files]
    problem = f"{path / MANIFEST} lists no {missing[0]}" if missing else storage.damage(path, files)
    if problem:
        raise CheckpointError(f"{problem}. Publish the model again, or use another version")
    return Checkpoint(path, name, version, manifest)
