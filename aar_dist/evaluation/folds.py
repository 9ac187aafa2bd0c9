"""Folds by subject: made once, written to ``folds.json``, the same for the network and for every baseline.

    subjects (+ the classes each carries) -> shuffled by (seed, attempt) -> dealt to n_folds test sides
    every train side -> some of its subjects held out as validation -> Folds <-> folds.json

A subject's place follows from its name and the seed. Where classes are told, the first shuffle is taken after which no
train side lacks a class that subjects outside its test side carry; if there is none, the one that lacks fewest.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import ConfigError
from aar_dist.base.hashing import hash_np, word
from aar_dist.stream.windows import WindowTable
from aar_dist.training.finetuning.folds import Fold, Folds

ATTEMPTS = 1000
Carried = Mapping[str, Collection[str]]
"""Subject -> the classes it carries."""


def make_folds(
    subjects: Sequence[str],
    n_folds: int | Literal["leave_one_out"] = 4,
    *,
    seed: int = 578,
    validation_share: float = 0.2,
    carried: Carried | None = None,
) -> Folds:
    """Folds whose test sides hold every subject once and differ by at most one subject.

    Args:
        subjects: Names; repeats count once.
        n_folds: Number of test sides; ``leave_one_out`` gives every subject one of its own.
        seed: Another seed, another deal.
        validation_share: Share of each train side's subjects that is held out for selection: at least one if it is
            above 0 and one can be spared.
        carried: The classes of each subject, to keep all of them in every train side where that can be.
    """
    names = np.array(sorted(set(subjects)))
    count = len(names) if n_folds == "leave_one_out" else n_folds
    if len(names) < 2:
        raise ConfigError(f"folds by subject need two subjects, found {names.tolist()}")
    if not 2 <= count <= len(names):
        raise ConfigError(f"n_folds must lie between 2 and the number of subjects, {len(names)}; got {n_folds}")
    if not 0 <= validation_share < 1:
        raise ConfigError(f"validation_share must lie in [0, 1), got {validation_share}")
    carried = carried or {}
    tests = _deal(names, count, seed, carried)
    return Folds(folds=tuple(_fold(names, test, seed, validation_share, carried) for test in tests))


def lacking(folds: Folds) -> list[tuple[int, str]]:
    """(fold, class) of every class that a train side lacks."""
    there = [_classes_of(fold.train, folds.carried) for fold in folds.folds]
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
    subjects = np.unique(table.subject)
    return {str(s): [(table.classes or ())[k] for k in _present(table.label[table.subject == s])] for s in subjects}


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
    n_folds: int | Literal["leave_one_out"] = 4,
    *,
    shards: str,
    seed: int = 578,
    validation_share: float = 0.2,
) -> Folds:
    """The folds of the subjects of a window table; its classes are kept in every train side where that can be."""
    carried = carried_classes(table)
    made = make_folds(list(carried), n_folds, seed=seed, validation_share=validation_share, carried=carried)
    return replace(made, classes=table.classes, shards=shards, carried=carried)


def _deal(names: NDArray[np.str_], n_folds: int, seed: int, carried: Carried) -> list[list[str]]:
    """The test sides."""
    times = Counter(name for subject in names for name in set(carried.get(str(subject), ())))
    wanted = {name for name, n in times.items() if n > 1}

    def cost(tests: list[list[str]]) -> int:
        return sum(len(wanted - _classes_of(set(names) - set(test), carried)) for test in tests)

    def deal(attempt: int) -> list[list[str]]:
        order = _shuffled(names, seed, word("folds"), attempt)
        return [sorted(order[k::n_folds].tolist()) for k in range(n_folds)]

    return _cheapest(deal, cost)


def _fold(names: NDArray[np.str_], test: Sequence[str], seed: int, share: float, carried: Carried) -> Fold:
    """A test side with the rest divided into train and validation."""
    rest = np.array([name for name in names if name not in test])
    n = min(len(rest) - 1, max(1, round(share * len(rest)))) if share else 0
    wanted = _classes_of(rest, carried)

    def divide(attempt: int) -> list[list[str]]:
        order = _shuffled(rest, seed, word("validation"), word(" ".join(test)), attempt)
        return [sorted(order[n:].tolist()), sorted(order[:n].tolist())]

    train, validation = _cheapest(divide, lambda sides: len(wanted - _classes_of(sides[0], carried)))
    return Fold(train=tuple(train), validation=tuple(validation), test=tuple(test))


def _cheapest(make: Callable[[int], list[list[str]]], cost: Callable[[list[list[str]]], int]) -> list[list[str]]:
    """The first of the attempts that costs nothing, or the cheapest."""
    best = make(0)
    least = cost(best)
    for attempt in range(1, ATTEMPTS):
        if not least:
            break
        sides = make(attempt)
        if (price := cost(sides)) < least:
            best, least = sides, price
    return best


def _shuffled(names: NDArray[np.str_], *address: int) -> NDArray[np.str_]:
    keys = np.array([word(str(name)) for name in names], np.uint64)
    return names[np.argsort(hash_np(*address, keys), kind="stable")]


def _classes_of(subjects: Collection[str], carried: Carried) -> set[str]:
    return {name for subject in subjects for name in carried.get(str(subject), ())}


def _present(label: NDArray[Any]) -> list[int]:
    return [] if label.dtype.kind == "f" else [int(k) for k in np.unique(label) if k >= 0]
