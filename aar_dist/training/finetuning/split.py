"""Which subjects train, which are held out for selection, which are tested on.

folds.json, or lists of subjects  ->  Sides  ->  masks over a WindowTable
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import ConfigError
from aar_dist.base.hashing import hash_int, word
from aar_dist.base.wording import meant, some
from aar_dist.stream.windows import WindowTable
from aar_dist.training.finetuning.dealing import Carried
from aar_dist.training.finetuning.dealing import hold_out as dealt
from aar_dist.training.finetuning.folds import SIDES, read_folds

VALIDATION, FEW = word("selection"), word("few")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Subjects of each side, ``<data set>/<subject>``."""

    folds: str | None = None
    """A folds.json; ``fold`` chooses from it."""
    fold: int | Literal["all"] = 0
    """Fold of ``folds``, from 0; ``all`` trains on every subject: no selection, no test."""
    train: list[str] = field(default_factory=list)
    """Without ``folds``: subjects to train on; empty for all that are in no other list."""
    validation: list[str] = field(default_factory=list)
    """Without ``folds``: subjects of the train side held out for selection; empty to draw ``validation_share``."""
    test: list[str] = field(default_factory=list)
    """Without ``folds``: subjects to test on."""
    validation_share: float = 0.2
    """Share of the train side's subjects held out for selection where none are named; at least one."""
    selection_seed: int = 578
    """Seed of that draw, and of ``train_share``."""
    train_share: float = 1.0
    """Share of the train side's subjects that train, at least one: for curves over the number of labelled subjects.
    A smaller share is part of a larger one. Validation and test sides stay as they are."""

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ConfigError(f"split.validation_share must lie between 0 and 1, got {self.validation_share}")
        if not 0 < self.train_share <= 1:
            raise ConfigError(f"split.train_share must lie above 0 and be 1 at most, got {self.train_share}")
        if isinstance(self.fold, int) and self.fold < 0:
            raise ConfigError(f"split.fold must be 0 or more, or all, got {self.fold}")
        if self.folds and (self.train or self.validation or self.test):
            raise ConfigError("split.folds and lists of subjects exclude each other; give one of them")


@dataclass(frozen=True)
class Sides:
    """Subjects of each side; no subject stands on two."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    """Empty without selection."""
    test: tuple[str, ...]
    """Empty without a test."""
    unused: tuple[str, ...] = ()
    """Of the train side, but left out by ``train_share``."""

    def told(self) -> dict[str, list[str]]:
        """The subjects of each side; those left out where there are any."""
        lists = {name: list(getattr(self, name)) for name in SIDES}
        return lists | ({"unused": list(self.unused)} if self.unused else {})


def sides(config: SplitConfig, table: WindowTable, identity: str) -> Sides:
    """The subjects of each side, all of which have labelled windows.

    Args:
        identity: Of the shard sets.

    Raises:
        ConfigError: no such fold, subjects or classes of another set, a subject on two sides, an empty side.
    """
    present = [str(name) for name in np.unique(table.subject)]
    if config.fold == "all":
        return few(Sides(tuple(present), (), ()), table, config)
    if config.folds:
        made, where = _of_fold(config, table, present, identity), f"{config.folds}, fold {config.fold}"
    else:
        made, where = _of_lists(config, present), "split"
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if both := sorted({*getattr(made, one)} & {*getattr(made, other)}):
            raise ConfigError(f"{where}: subject {both[0]} stands on two sides, {one} and {other}")
    if not made.train:
        raise ConfigError(f"{where}: no subject is left to train on; there are {some(present)}")
    return few(made if made.validation else hold_out(made, table, config), table, config)


def select(table: WindowTable, subjects: Sequence[str]) -> WindowTable:
    """The windows of these subjects."""
    mask: NDArray[np.bool_] = np.isin(table.subject, list(subjects))
    return table.select(mask)


def hold_out(made: Sides, table: WindowTable, config: SplitConfig) -> Sides:
    """Draw validation subjects from the train side: all classes where that can be, nobody without whom one is lost."""
    if len(made.train) < 2:
        raise ConfigError(
            f"one subject only to train on ({made.train[0]}): nobody can be held out for selection; "
            "label more subjects, or train the final model on all with --fold all"
        )
    wanted = min(len(made.train) - 1, max(1, round(config.validation_share * len(made.train))))
    train, held = dealt(made.train, carried(table, made.train), wanted, (config.selection_seed, VALIDATION))
    return Sides(tuple(train), tuple(held), made.test)


def few(made: Sides, table: WindowTable, config: SplitConfig) -> Sides:
    """``train_share`` of the subjects that train, the first of one fixed order."""
    if config.train_share == 1:
        return made
    order = few_order(made.train, carried(table, made.train), config.selection_seed)
    n = max(1, round(config.train_share * len(order)))
    return Sides(tuple(sorted(order[:n])), made.validation, made.test, tuple(sorted(order[n:])))


def few_order(subjects: Sequence[str], of: Carried, seed: int) -> list[str]:
    """A draw of the subjects whose beginnings have as many classes as can be: whoever adds the most comes next until
    none is missing."""
    left = sorted(subjects, key=lambda name: hash_int(seed, FEW, word(name)))
    order: list[str] = []
    there: set[str] = set()
    while left:
        best = max(left, key=lambda name: len({*of.get(name, ())} - there))  # the first of equals
        order.append(best)
        left.remove(best)
        there |= {*of.get(best, ())}
    return order


def carried(table: WindowTable, subjects: Sequence[str]) -> dict[str, Counter[str]]:
    """Windows of each class of these subjects; none where the label is a target."""
    if table.classes is None:
        return {}
    return {name: Counter(map(str, select(table, [name]).label.tolist())) for name in subjects}


def _of_lists(config: SplitConfig, present: Sequence[str]) -> Sides:
    if not config.test and not config.train:
        raise ConfigError(
            "split: nobody to test on; give split.folds (a folds.json), subjects as split.test, or --fold all for a "
            "final model on every subject"
        )
    for key in ("train", "validation", "test"):
        _known(getattr(config, key), present, f"split.{key}")
    others = {*config.test, *config.validation}
    train = config.train or [name for name in present if name not in others]
    if not train and len(present) == 1:
        raise ConfigError(f"one subject only ({present[0]}): nobody to test on; label more subjects, or use --fold all")
    return Sides(tuple(sorted(train)), tuple(sorted(config.validation)), tuple(sorted(config.test)))


def _of_fold(config: SplitConfig, table: WindowTable, present: Sequence[str], identity: str) -> Sides:
    folds = read_folds(str(config.folds))
    classes = list(table.classes or ())
    if folds.classes and list(folds.classes) != classes:
        raise ConfigError(
            f"{config.folds} was made for the classes {list(folds.classes)}, the windows carry {classes}; "
            "set windows.classes as it was, or make the folds again"
        )
    if folds.shards not in ("", identity):
        raise ConfigError(
            f"{config.folds} was made for the shards {folds.shards[:12]}, these are {identity[:12]}; give those "
            "in data.shards, or make the folds again"
        )
    assert isinstance(config.fold, int), "all has been answered"
    if config.fold >= len(folds):
        raise ConfigError(f"split.fold {config.fold} is out of range: {config.folds} has folds 0 to {len(folds) - 1}")
    fold = folds.fold(config.fold)
    for side in SIDES:
        _known(getattr(fold, side), present, f"{config.folds}, fold {config.fold}, {side}")
    return Sides(*(tuple(sorted(getattr(fold, side))) for side in SIDES))


def _known(names: Sequence[str], present: Sequence[str], where: str) -> None:
    for name in names:
        if name not in present:
            raise ConfigError(
                f"{where}: no labelled window of a subject {name!r} in the shards; {meant(name, present)}"
            )
