"""Folds by subject and ``folds.json``: written once, checked whenever it is read.

{"folds": [{"train": […], "validation": […], "test": […]}], "repeats": 1, "classes": […], "labels": {…},
 "shards": identity, "carried": {…}, "audit": {…}}

A file written by hand may hold ``folds`` alone, and leave ``validation`` out. With ``repeats`` r, the first r-th part
of the folds tests every subject once, and so does the next.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aar_dist.base import storage
from aar_dist.base.errors import ConfigError
from aar_dist.stream.windows import WindowTable

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")

KINDS: dict[str, tuple[type, ...]] = {
    "folds": (list,), "classes": (list, type(None)), "shards": (str, type(None)), "carried": (dict,), "audit": (dict,),
    "repeats": (int,), "labels": (dict,),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Subjects (``herd/12``) of the three sides, sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    """Held inside the train side, for selection and early stopping."""
    test: tuple[str, ...]

    def side_of(self) -> dict[str, str]:
        """Subject -> side."""
        return {subject: side for side in SIDES for subject in getattr(self, side)}


@dataclass(frozen=True, kw_only=True)
class Folds:
    """All folds over one set of subjects."""

    folds: tuple[Fold, ...]
    classes: tuple[str, ...] | None = None
    """In the order of their numbers; None where the label is a target."""
    shards: str = ""
    """Identity of the shard sets they were made for."""
    carried: dict[str, list[str]] = field(default_factory=dict)
    """Subject -> the classes it carries."""
    repeats: int = 1
    """Deals of the same subjects, one behind the other."""
    labels: dict[str, Any] = field(default_factory=dict)
    """``map`` and ``unlisted`` of the windows, where the classes are not those of the recordings."""
    audit: dict[str, Any] = field(default_factory=dict)
    """What :func:`aar_dist.evaluation.audit.audited` found."""

    def __len__(self) -> int:
        return len(self.folds)

    def repeat_of(self, number: int) -> int:
        """Which deal the fold of this number belongs to, from 0."""
        return number * self.repeats // len(self.folds)

    def fold(self, number: int) -> Fold:
        """The fold of this number, from 0."""
        if not 0 <= number < len(self.folds):
            raise ConfigError(f"fold {number}: there are {len(self.folds)}, expected 0 to {len(self.folds) - 1}")
        return self.folds[number]

    def select(self, table: WindowTable, number: int, *sides: Side) -> WindowTable:
        """The windows of one side of a fold, or of several."""
        subjects = [subject for side in sides for subject in getattr(self.fold(number), side)]
        return table.select(np.isin(table.subject, subjects))

    def check_shards(self, identity: str) -> None:
        """Refuse folds of other shard sets: their labels and subjects may differ."""
        if self.shards != identity:
            raise ConfigError(
                f"the folds were made for shards {self.shards[:12]}, but these are {identity[:12]}; "
                "give the shard sets they were made for, or make new folds"
            )


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
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not JSON (no text at all); expected a folds.json") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a folds.json") from None


def read_folds_text(text: str, path: Path) -> Folds:
    """The folds of the text of a file."""
    try:
        told = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error}); make the folds again") from None
    if not isinstance(told, dict):
        raise ConfigError(f"{path}: holds a {type(told).__name__}; expected the keys {', '.join(KINDS)}")
    told = {"repeats": 1, **told}
    for key, kinds in KINDS.items():
        if not isinstance(told.setdefault(key, kinds[0]()), kinds):
            raise ConfigError(f"{path}: {key} is {told[key]!r}; expected the folds.json of this program")
    if not told["folds"]:
        raise ConfigError(f"{path} has no folds; make the folds again")
    folds = tuple(_fold(fold, number, path) for number, fold in enumerate(told["folds"]))
    _check_tests(folds, told["repeats"], path)
    rest = {key: told[key] for key in ("carried", "audit", "repeats", "labels")}
    return Folds(folds=folds, classes=tuple(told["classes"] or ()) or None, shards=told["shards"] or "", **rest)


def _check_tests(folds: tuple[Fold, ...], repeats: int, path: Path) -> None:
    """Every subject is tested once at most in each repeat."""
    if repeats < 1 or len(folds) % repeats:
        raise ConfigError(f"{path}: {len(folds)} folds cannot be {repeats} repeats; make the folds again")
    each = len(folds) // repeats
    for first in range(0, len(folds), each):
        tested = Counter(subject for fold in folds[first : first + each] for subject in fold.test)
        if twice := sorted(subject for subject, n in tested.items() if n > 1):
            raise ConfigError(f"{path}: subject {twice[0]} is on two test sides; make the folds again")


def _fold(told: Any, number: int, path: Path) -> Fold:
    sides = {side: told.get(side, []) for side in SIDES} if isinstance(told, dict) else {}
    if not sides or not all(isinstance(of, list) and all(isinstance(s, str) for s in of) for of in sides.values()):
        raise ConfigError(f"{path}: fold {number} needs lists of subjects under {', '.join(SIDES)}")
    fold = Fold(**{side: tuple(of) for side, of in sides.items()})
    times = Counter([*fold.train, *fold.validation, *fold.test])
    if twice := sorted(subject for subject, n in times.items() if n > 1):
        where = " and ".join(side for side in SIDES for of in getattr(fold, side) if of == twice[0])
        raise ConfigError(f"{path}: subject {twice[0]} is twice in fold {number}, {where}; one side only may have it")
    if not fold.train or not fold.test:
        raise ConfigError(f"{path}: fold {number} has an empty train or test side")
    return fold
