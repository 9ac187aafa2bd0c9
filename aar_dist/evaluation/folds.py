"""Folds by subject: made once, written to ``folds.json``, the same for the network and for every baseline.

    subjects (+ windows of each class) -> groups -> dealt to n_folds test sides, class by class, as often as `repeats`
    every train side -> some of its subjects held out as validation -> Folds <-> folds.json

A subject's place follows from its name, the seed and the classes. What makes sides even is
:mod:`aar_dist.training.finetuning.dealing`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import ConfigError
from aar_dist.base.hashing import word
from aar_dist.stream.windows import WindowTable
from aar_dist.training.finetuning.dealing import Carried, Sides, as_set, classes_of, deal, hold_out
from aar_dist.training.finetuning.folds import Fold, Folds

NumberOfFolds = int | Literal["leave_one_out"]


def make_folds(
    subjects: Sequence[str],
    n_folds: NumberOfFolds = 4,
    *,
    seed: int = 578,
    validation_share: float = 0.2,
    carried: Carried | None = None,
    groups: Mapping[str, str] | None = None,
    one_each: bool = False,
    repeats: int = 1,
) -> Folds:
    """Folds whose test sides hold every subject once in each repeat and differ by at most one group.

    Args:
        subjects: Names; repeats count once.
        n_folds: Number of test sides; ``leave_one_out`` gives every group one of its own.
        seed: Another seed, another deal, where there is one as even.
        validation_share: Share of each train side's subjects that is held out for selection: at least one if it is
            above 0 and one can be spared. Whole groups, where the train side has enough of them for that share.
        carried: The classes of each subject, or its windows of each: every side gets its share of all of them, and no
            train side lacks one where that can be.
        groups: Subject -> what it belongs to (a farm, a data set): a group is on one side. None for each its own.
        one_each: A group is one individual under several names: nothing divides it, not even for validation.
        repeats: Deals of the same subjects, one behind the other.

    Raises:
        ConfigError: fewer groups than folds, or a value out of range.
    """
    names = sorted(set(subjects))
    of_group = {name: (groups or {}).get(name, name) for name in names}
    pool = _Pool(names, of_group, one_each, carried or {}, seed, validation_share)
    count = _checked(pool, n_folds, validation_share, repeats)
    made: list[Sides] = []
    for repeat in range(repeats):
        made.append(pool.tests(count, repeat, made))
    folds = tuple(pool.fold(test) for tests in made for test in tests)
    return Folds(folds=folds, repeats=repeats)


@dataclass(frozen=True)
class _Pool:
    """All that is dealt, and how."""

    names: list[str]
    of_group: Mapping[str, str]
    one_each: bool
    carried: Carried
    seed: int
    share: float

    def groups(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Group -> its subjects among these."""
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(self.of_group[name], []).append(name)
        return found

    def of_groups(self, groups: Mapping[str, Sequence[str]]) -> Carried:
        """The windows of each class in each group."""
        return {g: sum((Counter(self.carried.get(s, ())) for s in of), Counter()) for g, of in groups.items()}

    def tests(self, count: int, repeat: int, before: Sequence[Sides]) -> Sides:
        """The test sides, other ones than in the repeats before where that can be."""
        groups = self.groups(self.names)
        if count == len(groups):
            return [sorted(groups[g]) for g in sorted(groups)]
        sizes = [len(groups) // count + (k < len(groups) % count) for k in range(count)]
        address = (self.seed, word("folds"), *((repeat,) if repeat else ()))
        seen = [as_set([[self.of_group[s] for s in side] for side in sides]) for sides in before]
        sides = deal(list(groups), self.of_groups(groups), sizes, address, unlike=seen)
        return [sorted(s for g in side for s in groups[g]) for side in sides]

    def fold(self, test: Sequence[str]) -> Fold:
        """A test side with the rest divided into train and validation."""
        rest = [name for name in self.names if name not in {*test}]
        units = self.groups(rest)
        if not self.one_each and round(self.share * len(units)) < 1:  # a group would be too much of it
            units = {name: [name] for name in rest}
        if not self.share or len(units) < 2:
            return Fold(train=tuple(rest), validation=(), test=tuple(test))
        n = min(len(units) - 1, max(1, round(self.share * len(units))))
        address = (self.seed, word("validation"), word(" ".join(test)))
        sides = hold_out(list(units), self.of_groups(units), n, address)
        train, held = (sorted(s for unit in side for s in units[unit]) for side in sides)
        return Fold(train=tuple(train), validation=tuple(held), test=tuple(test))


def _checked(pool: _Pool, n_folds: NumberOfFolds, validation_share: float, repeats: int) -> int:
    """The number of test sides of a repeat."""
    groups = pool.groups(pool.names)
    if len(pool.names) < 2:
        raise ConfigError(f"folds by subject need two subjects, found {pool.names}")
    if len(groups) < 2:
        raise ConfigError(
            f"cross_validation.group: all {len(pool.names)} subjects are of one group, {next(iter(groups))!r}: nothing "
            "is left to test on; choose another group"
        )
    count = len(groups) if n_folds == "leave_one_out" else n_folds
    what = "subjects" if len(groups) == len(pool.names) else "groups"
    if not 2 <= count <= len(groups):
        raise ConfigError(f"n_folds must lie between 2 and the number of {what}, {len(groups)}; got {n_folds}")
    if not 0 <= validation_share < 1:
        raise ConfigError(f"validation_share must lie in [0, 1), got {validation_share}")
    if repeats > 1 and count == len(groups):
        raise ConfigError(
            f"cross_validation.repeats is {repeats}, but every one of the {count} {what} is tested by itself: there is "
            "no other deal; leave repeats at 1, or make fewer folds"
        )
    return count


def lacking(folds: Folds) -> list[tuple[int, str]]:
    """(fold, class) of every class that a train side lacks."""
    there = [classes_of(fold.train, folds.carried) for fold in folds.folds]
    return [(number, name) for number in range(len(folds)) for name in folds.classes or () if name not in there[number]]


def require_classes(folds: Folds, *, allow_missing: bool = False) -> list[str]:
    """A line for each class that a train side lacks; an error that names them unless it is allowed."""
    lines = [f"the train side of fold {number} has no window of {name!r}" for number, name in lacking(folds)]
    if lines and not allow_missing:
        raise ConfigError(
            f"{'; '.join(lines)}. Leave the class out (windows.classes), make fewer folds, or allow it "
            "(--allow_missing_classes)"
        )
    return lines


def carried_classes(table: WindowTable) -> dict[str, list[str]]:
    """Subject -> the classes of its windows, in order; nothing where the label is a target."""
    return {subject: list(of) for subject, of in counted_classes(table).items()}


def counted_classes(table: WindowTable) -> dict[str, dict[str, int]]:
    """Subject -> class -> its windows; nothing where the label is a target."""
    subjects, names = np.unique(table.subject), table.classes or ()
    return {str(s): {names[k]: n for k, n in _counts(table.label[table.subject == s])} for s in subjects}


def usable_classes(table: WindowTable, *, min_windows: int = 1, min_subjects: int = 2) -> list[str]:
    """The classes with enough windows, on enough subjects; fewer than two are an error."""
    names = table.classes or ()
    rows = [(name, table.subject[table.label == k]) for k, name in enumerate(names)]
    kept = [name for name, of in rows if len(of) >= max(1, min_windows) and len(np.unique(of)) >= min_subjects]
    if len(kept) < 2:
        found = ", ".join(f"{name} {len(of)} of {len(np.unique(of))}" for name, of in rows)
        raise ConfigError(
            f"{len(kept)} classes have {min_windows} windows or more of {min_subjects} subjects or more, expected two; "
            f"windows and subjects found: {found or 'none'}"
        )
    return kept


def folds_of(
    table: WindowTable,
    n_folds: NumberOfFolds = 4,
    *,
    shards: str,
    **more: Any,
) -> Folds:
    """The folds of the subjects of a window table, whose classes every side has its share of; ``more`` as in
    :func:`make_folds`."""
    counted = counted_classes(table)
    made = make_folds(list(counted), n_folds, carried=counted, **more)
    return replace(made, classes=table.classes, shards=shards, carried=carried_classes(table))


def _counts(label: NDArray[Any]) -> list[tuple[int, int]]:
    if label.dtype.kind == "f":
        return []
    return [(int(k), int(n)) for k, n in zip(*np.unique(label[label >= 0], return_counts=True), strict=True)]
