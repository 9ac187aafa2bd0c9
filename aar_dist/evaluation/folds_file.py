"""``folds.json``: written once, checked whenever it is read.

{"folds": [{"train": […], "validation": […], "test": […]}], "classes": […], "shards": identity, "carried": {…},
 "audit": {…}}
"""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aar_dist.base import storage
from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.folds import SIDES, Fold, Folds

KINDS: dict[str, tuple[type, ...]] = {
    "folds": (list,), "classes": (list, type(None)), "shards": (str,), "carried": (dict,), "audit": (dict,)
}  # fmt: skip


def keep_folds(path: str | Path, folds: Folds) -> Folds:
    """Write ``folds.json`` if it is not there; refuse if it holds other folds."""
    path = Path(path)
    if not path.exists():
        storage.write_json(path, asdict(folds))
    elif read_folds(path) != read_folds_text(json.dumps(asdict(folds)), path):
        raise ConfigError(
            f"{path}: holds other folds (another seed, number, share, class list, shard set or audit); take the "
            "settings they were made with, or write to another folder"
        )
    return folds


def read_folds(path: str | Path) -> Folds:
    """Read and check a ``folds.json``."""
    try:
        return read_folds_text(Path(path).read_text(), Path(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a folds.json") from None


def read_folds_text(text: str, path: Path) -> Folds:
    """The folds of the text of a file."""
    try:
        told = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error}); make the folds again") from None
    for key, kinds in KINDS.items():
        if not isinstance(told, dict) or not isinstance(told.get(key, ...), kinds):
            raise ConfigError(f"{path}: {key} is missing or of another kind; expected the folds.json of this program")
    folds = tuple(_fold(fold, number, path) for number, fold in enumerate(told["folds"]))
    tested = Counter(subject for fold in folds for subject in fold.test)
    twice = sorted(subject for subject, n in tested.items() if n > 1)
    if twice:
        raise ConfigError(f"{path}: subject {twice[0]} is on two test sides; make the folds again")
    classes = None if told["classes"] is None else tuple(told["classes"])
    rest = {key: told[key] for key in ("shards", "carried", "audit")}
    return Folds(folds=folds, classes=classes, **rest)


def _fold(told: Any, number: int, path: Path) -> Fold:
    if not isinstance(told, dict) or not all(isinstance(told.get(side), list) for side in SIDES):
        raise ConfigError(f"{path}: fold {number} needs lists of subjects under {', '.join(SIDES)}")
    fold = Fold(train=tuple(told["train"]), validation=tuple(told["validation"]), test=tuple(told["test"]))
    times = Counter([*fold.train, *fold.validation, *fold.test])
    twice = sorted(subject for subject, n in times.items() if n > 1)
    if twice:
        raise ConfigError(f"{path}: subject {twice[0]} is twice in fold {number}; a subject is on one side only")
    if not fold.train or not fold.test:
        raise ConfigError(f"{path}: fold {number} has an empty train or test side")
    return fold
