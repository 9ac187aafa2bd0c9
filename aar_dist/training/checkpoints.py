"""Checkpoints for resuming: staged, hashed, published by rename, believed only with their marker.

checkpoints/step_00000100/   DeepSpeed's files of every rank
                             manifest.json   sha256 of each, architecture, progress, validation loss
                             COMPLETE        last of all
checkpoints/PINNED           names never removed, one on a line
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aar_dist.base import storage
from aar_dist.base.errors import CheckpointError
from aar_dist.training.health.retention import Retention
from aar_dist.training.health.retention import best as lowest
from aar_dist.training.progress import Progress

MANIFEST, COMPLETE, PINNED = "manifest.json", "COMPLETE", "PINNED"


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint, as its manifest describes it."""

    path: Path
    files: dict[str, str]
    """Relative name -> sha256."""
    architecture: dict[str, list[int]]
    """Parameter -> shape."""
    layout: dict[str, Any]
    """Ranks, ZeRO stage and so on: what DeepSpeed's files are cut by."""
    progress: Progress
    val_loss: float | None

    @property
    def step(self) -> int:
        """Optimizer steps it holds."""
        return self.progress.step


def name_of(step: int) -> str:
    """Folder of a checkpoint."""
    return f"step_{step:08d}"


def complete(folder: Path) -> list[Path]:
    """Folders of complete checkpoints, oldest first."""
    return sorted(p.parent for p in folder.glob(f"step_????????/{COMPLETE}"))


def read(path: Path) -> Saved:
    """A checkpoint's manifest. Raises ``CheckpointError`` if it cannot be understood."""
    try:
        text = json.loads((path / MANIFEST).read_text())
        return Saved(path=path, progress=Progress.from_dict(text.pop("progress")), **text)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path / MANIFEST} cannot be read: {error}") from None


def write_manifest(staging: Path, saved: Mapping[str, Any]) -> None:
    """Describe what every rank has written to ``staging``."""
    storage.write_json(staging / MANIFEST, {"files": storage.hash_tree(staging), **saved})


def publish(staging: Path, final: Path) -> Path:
    """Give a finished checkpoint its name, then its marker; one of the same name that is not complete gives way."""
    if final.exists():
        storage.remove(final)
    with storage.one_line_errors(final, staging):
        storage.publish(staging, final)
        storage.write_text(final / COMPLETE, "")
    return final


def newest_whole(folder: Path) -> tuple[Saved | None, dict[Path, str]]:
    """The newest checkpoint whose files all match their hashes, and what is wrong with each that was passed over.
    Nothing is written.

    Raises:
        CheckpointError: there are checkpoints, and every one is damaged.
    """
    damaged: dict[Path, str] = {}
    for path in reversed(complete(folder)):
        try:
            saved = read(path)
            problem = storage.damage(path, saved.files)
        except CheckpointError as error:
            problem = str(error)
        if problem is None:
            return saved, damaged
        damaged[path] = problem
    if damaged:
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged: {'; '.join(damaged.values())}. "
            "Restore one, or remove the folder to begin anew"
        )
    return None, damaged


def disown(damaged: Iterable[Path]) -> None:
    """Take the marker from damaged checkpoints, so that nothing counts on them again."""
    for path in damaged:
        (path / COMPLETE).unlink()


def learn(path: Path, val_loss: float | None) -> None:
    """Enter a validation loss that was not known when the checkpoint was written; one file is replaced, whole."""
    manifest = storage.read_json(path / MANIFEST)
    storage.write_json(path / MANIFEST, {**manifest, "val_loss": val_loss})


def check_same_model(saved: Saved, architecture: Mapping[str, list[int]]) -> None:
    """Raise ``CheckpointError`` unless this model is the one in the checkpoint."""
    difference = first_difference(saved.architecture, architecture)
    if difference:
        raise CheckpointError(
            f"{saved.path} holds another architecture: {difference}. Set the model as it was (config.yaml of the run), "
            "or choose another --out"
        )


def first_difference(saved: Mapping[str, list[int]], wanted: Mapping[str, list[int]]) -> str | None:
    """The first parameter by which two models differ, in words."""
    for name in [*wanted, *saved]:
        if saved.get(name) != wanted.get(name):
            shapes = [str(tuple(s[name])) if name in s else "nothing" for s in (saved, wanted)]
            return f"{name} is {shapes[0]} there and {shapes[1]} here"
    return None


def prune(folder: Path, retention: Retention) -> list[Path]:
    """Remove what need not stay, and what is left of checkpoints that were never finished, were damaged, or whose
    removal was cut short. Only while nobody writes there."""
    kept = pinned(folder)
    whole = {_step(path): path for path in complete(folder)}
    losses = {step: _val_loss(path) for step, path in whole.items()}
    removed = [whole[step] for step in retention.doomed(losses, {step for step, path in whole.items() if path in kept})]
    for path in removed:
        (path / COMPLETE).unlink()
    left = {*folder.glob("step_????????")} - {*complete(folder)} - kept
    for path in left:
        storage.remove(path)
    return removed


def best(folder: Path) -> Path | None:
    """The complete checkpoint with the lowest validation loss, the earliest of equals; None if none was validated."""
    whole = {_step(path): path for path in complete(folder)}
    step = lowest({step: _val_loss(path) for step, path in whole.items()})
    return None if step is None else whole[step]


def chosen(folder: Path) -> Saved:
    """The best one, or the newest if none was validated. Raises ``CheckpointError`` if its files are not whole."""
    saved = read(best(folder) or complete(folder)[-1])
    problem = storage.damage(saved.path, saved.files)
    if problem:
        raise CheckpointError(
            f"{problem}; it is the best by validation: restore it, or remove {saved.path} to go on with the next best"
        )
    return saved


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _val_loss(path: Path) -> float | None:
    """Validation loss at a checkpoint; None if there was none, or if the manifest is damaged."""
    try:
        return read(path).val_loss
    except CheckpointError:
        return None


def pinned(folder: Path) -> set[Path]:
    """Checkpoints that must stay."""
    file = folder / PINNED
    names = file.read_text().split() if file.exists() else []
    return {folder / name for name in names}
