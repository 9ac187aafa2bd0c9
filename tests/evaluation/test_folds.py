"""Folds by subject: every one tested once, never on two sides, the same for the same seed."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.folds import (
    carried_classes,
    folds_of,
    lacking,
    make_folds,
    require_classes,
    usable_classes,
)
from aar_dist.stream.config import DataConfig
from aar_dist.stream.windows import WindowConfig, open_windows
from aar_dist.training.finetuning.folds import keep_folds, read_folds
from aar_dist.training.finetuning.split import SplitConfig, sides

COWS = [f"herd/{i}" for i in range(10)]


@pytest.fixture(scope="module")
def table(shard_set):
    return open_windows(DataConfig(shards=[str(shard_set)], segment_duration=1.0), WindowConfig())[1]


@given(st.integers(2, 30), st.integers(2, 30), st.integers(0, 99), st.floats(0, 0.9))
def test_every_subject_is_tested_once_and_stands_on_one_side(n_subjects, n_folds, seed, share):
    subjects = [f"s{i}" for i in range(n_subjects)]
    n_folds = min(n_folds, n_subjects)
    folds = make_folds(subjects, n_folds, seed=seed, validation_share=share).folds
    assert sorted(s for fold in folds for s in fold.test) == sorted(subjects)
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for fold in folds:
        assert sorted([*fold.train, *fold.validation, *fold.test]) == sorted(subjects)
        rest = n_subjects - len(fold.test)
        assert len(fold.validation) == (min(rest - 1, max(1, round(share * rest))) if share else 0)
        assert fold.train


def test_the_seed_and_the_names_decide():
    assert make_folds(COWS, 5) == make_folds(COWS[::-1] * 3, 5)
    assert make_folds(COWS, 5) != make_folds(COWS, 5, seed=1)
    assert [len(f.test) for f in make_folds(COWS, "leave_one_out").folds] == [1] * 10


@given(st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=6, max_size=12), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_a_class_of_two_subjects_is_in_every_train_side(of_subject, seed):
    """With one test subject a fold nothing is dealt; what validation takes must leave the class behind."""
    carried = {f"s{i}": sorted(classes) for i, classes in enumerate(of_subject)}
    folds = replace(
        make_folds(list(carried), "leave_one_out", seed=seed, carried=carried),
        carried=carried,
        classes=tuple(c for c in "abcd" if sum(c in of for of in of_subject) > 1),
    )
    assert lacking(folds) == []


def test_rare_classes_are_dealt_apart():
    carried = {cow: ["walk", *(["rest"] if i in (3, 7) else [])] for i, cow in enumerate(COWS)}
    apart = 0
    for seed in range(20):
        plain = make_folds(COWS, 2, seed=seed, validation_share=0)
        together = [fold for fold in plain.folds if {COWS[3], COWS[7]} <= set(fold.test)]
        apart += bool(together)
        told = make_folds(COWS, 2, seed=seed, validation_share=0.4, carried=carried)
        assert lacking(replace(told, carried=carried, classes=("rest", "walk"))) == []
    assert apart > 5, "by chance both would often have stood in one test side"


def herd(seed: int, n_subjects: int = 14, n_classes: int = 5) -> dict[str, dict[str, int]]:
    """Windows of each class, as uneven as those of animals."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(1.0, 30.0, (n_subjects, n_classes)) * (rng.random((n_subjects, n_classes)) < 0.7))
    counts[:2] += 1
    return {f"s{i:02d}": {f"c{k}": int(n) for k, n in enumerate(of) if n} for i, of in enumerate(counts)}


def unevenness(tests, carried) -> float:
    """How far the class shares of the test sides lie from equal ones, on average."""
    names = sorted({k for of in carried.values() for k in of})
    counts = np.array([[sum(carried[s].get(k, 0) for s in test) for k in names] for test in tests])
    return float(np.abs(counts / counts.sum(axis=0) - 1 / len(tests)).mean())


def test_class_shares_are_as_even_as_those_of_scikit_learn_and_the_sides_as_large():
    ours, theirs, chance = [], [], []
    for seed in range(4):
        carried = herd(seed, 30, 8)
        made = [fold.test for fold in make_folds(list(carried), 5, seed=seed, carried=carried).folds]
        assert {len(test) for test in made} == {6}
        plain = [fold.test for fold in make_folds(list(carried), 5, seed=seed).folds]
        y = np.concatenate([np.repeat(list(of), list(of.values())) for of in carried.values()])
        owner = np.repeat(list(carried), [sum(of.values()) for of in carried.values()])
        split = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(y, y, owner)
        sides = [np.unique(owner[test]).tolist() for _, test in split]
        for of, tests in ((ours, made), (theirs, sides), (chance, plain)):
            of.append(unevenness(tests, carried))
    assert np.mean(ours) < np.mean(theirs) < np.mean(chance)


@given(st.integers(0, 999), st.integers(2, 4), st.integers(1, 3), st.booleans())
@settings(max_examples=20, deadline=None)
def test_groups_stay_together_in_every_repeat(seed, n_folds, repeats, leave_out):
    carried = herd(seed)
    farm = {s: f"farm {int(s[1:]) % 5}" for s in carried}
    n, repeats = ("leave_one_out", 1) if leave_out else (n_folds, repeats)
    folds = make_folds(list(carried), n, carried=carried, groups=farm, repeats=repeats, seed=seed)
    each = len(folds) // repeats
    assert folds.repeats == repeats
    assert each == (5 if leave_out else n_folds)
    deals = set()
    for first in range(0, len(folds), each):
        part = folds.folds[first : first + each]
        assert sorted(s for fold in part for s in fold.test) == sorted(carried)
        deals.add(frozenset(fold.test for fold in part))
        for number, fold in enumerate(part, first):
            sides = [{farm[s] for s in side} for side in (fold.train, fold.validation, fold.test)]
            assert not sides[2] & (sides[0] | sides[1])
            assert fold.validation, "never empty"
            assert folds.repeat_of(number) == first // each
    assert len(deals) == repeats


def test_validation_has_all_classes_where_it_can_and_takes_none_from_the_train_side():
    for seed in range(5):
        carried = herd(seed, 12, 4)
        for fold in make_folds(list(carried), 4, seed=seed, carried=carried, validation_share=0.3).folds:
            rest = {k for s in (*fold.train, *fold.validation) for k in carried[s]}
            assert {k for s in fold.train for k in carried[s]} == rest
            assert len({k for s in fold.validation for k in carried[s]}) >= len(rest) - 1


def test_one_individual_under_two_names_is_never_divided():
    person = {f"{dataset}/{who}": who for dataset in ("a", "b") for who in ("1", "2", "3")}
    for fold in make_folds(list(person), "leave_one_out", groups=person, one_each=True).folds:
        sides = [{person[s] for s in side} for side in (fold.train, fold.validation, fold.test)]
        assert [len(side) for side in sides] == [1, 1, 1]
        assert len(set.union(*sides)) == 3


def test_a_class_of_one_subject_is_named_and_can_be_allowed():
    carried = {cow: ["walk", *(["rest"] if cow == "herd/3" else [])] for cow in COWS}
    made = make_folds(COWS, 5, carried=carried)
    folds = replace(made, carried=carried, classes=("walk", "rest"))
    number = next(k for k, fold in enumerate(folds.folds) if "herd/3" in fold.test)
    assert lacking(folds) == [(number, "rest")]
    with pytest.raises(ConfigError, match=f"train side of fold {number} has no window of 'rest'.*--allow_missing"):
        require_classes(folds)
    assert len(require_classes(folds, allow_missing=True)) == 1


@pytest.mark.parametrize(
    ("subjects", "n", "more", "said"),
    [
        (["a"], 2, {}, r"need two subjects, found \['a'\]"),
        ([], "leave_one_out", {}, "need two subjects"),
        (COWS, 11, {}, "between 2 and the number of subjects, 10; got 11"),
        (COWS, 1, {}, "got 1"),
        (COWS, 5, {"validation_share": 1.0}, "validation_share must lie"),
        (COWS, 5, {"groups": dict.fromkeys(COWS, "farm")}, "all 10 subjects are of one group, 'farm'"),
        (COWS, 3, {"groups": dict(zip(COWS, "ab" * 5, strict=True))}, "between 2 and the number of groups, 2; got 3"),
        (COWS, "leave_one_out", {"repeats": 2}, "every one of the 10 subjects is tested by itself"),
    ],
)
def test_what_cannot_be_folded_is_told(subjects, n, more, said):
    with pytest.raises(ConfigError, match=said):
        make_folds(subjects, n, **more)


def test_folds_of_windows(table, tmp_path):
    folds = folds_of(table, 4, shards="abc", validation_share=0.3)
    assert folds.carried == carried_classes(table)
    assert set(folds.carried) == set(table.subject.tolist())
    sides = [folds.select(table, 1, side) for side in ("train", "validation", "test")]
    assert sum(map(len, sides)) == len(table)
    assert set(sides[2].subject.tolist()) == set(folds.fold(1).test)
    assert len(folds.select(table, 1, "train", "validation")) == len(sides[0]) + len(sides[1])
    with pytest.raises(ConfigError, match="fold 4: there are 4, expected 0 to 3"):
        folds.fold(4)
    with pytest.raises(ConfigError, match="made for shards abc, but these are def"):
        folds.check_shards("def")
    path = tmp_path / "run" / "folds.json"
    assert keep_folds(path, folds) == keep_folds(path, folds) == read_folds(path) == folds
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="holds other folds"):
        keep_folds(path, folds_of(table, 3, shards="abc"))
    assert path.read_bytes() == before


def test_usable_classes(table):
    names = table.classes
    counts = {name: int((table.label == k).sum()) for k, name in enumerate(names)}
    assert usable_classes(table) == list(names)
    rarest = min(counts, key=counts.get)
    assert usable_classes(table, min_windows=counts[rarest] + 1) == [n for n in names if n != rarest]
    with pytest.raises(
        ConfigError, match=f"0 classes have 1 windows or more of 9 .*{names[0]} {counts[names[0]]} of 4"
    ):
        usable_classes(table, min_subjects=9)
    few = table.select((table.label != 0) | (table.subject == table.subject[0]))
    assert usable_classes(few, min_subjects=2) == list(names[1:])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"folds": [{"train": ["a"], "validation": ["b"], "test": ["a"]}]}, "a is twice in fold 0, train and test"),
        ({"folds": [{"train": ["a"], "validation": [], "test": ["b"]}] * 2}, "b is on two test sides"),
        ({"folds": [{"train": ["a"], "test": "b"}]}, "fold 0 needs lists of subjects under train, validation"),
        ({"folds": [{"train": [], "validation": ["a"], "test": ["b"]}]}, "empty train or test side"),
        ({"shards": 3}, "shards is 3; expected"),
        ({"repeats": 2}, "1 folds cannot be 2 repeats"),
    ],
)
def test_a_bad_file_is_named(tmp_path, changes, said):
    path = tmp_path / "folds.json"
    fold = {"train": ["a"], "validation": [], "test": ["b"]}
    whole = {"folds": [fold], "classes": None, "shards": "x", "carried": {}, "audit": {}}  # as of old
    path.write_text(json.dumps(whole))
    assert len(read_folds(path)) == 1
    path.write_text(json.dumps(whole | changes))
    with pytest.raises(ConfigError, match=said) as caught:
        read_folds(path)
    assert str(path) in str(caught.value)
    path.write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        read_folds(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_folds(tmp_path / "none.json")


def test_no_subject_of_a_fold_shares_windows_with_another_side(table):
    folds = folds_of(table, "leave_one_out", shards="x")
    for number, fold in enumerate(folds.folds):
        test, rest = folds.select(table, number, "test"), folds.select(table, number, "train", "validation")
        assert set(np.unique(test.subject)) == set(fold.test)
        assert not set(test.recording.tolist()) & {
            r for r, s in zip(rest.recording, rest.subject, strict=True) if s in fold.test
        }


def test_fine_tuning_reads_the_sides_that_were_written(table, tmp_path):
    path = tmp_path / "folds.json"
    folds = keep_folds(path, folds_of(table, 4, shards="abc", validation_share=0.3))
    for number, fold in enumerate(folds.folds):
        assert fold.validation
        made = sides(SplitConfig(folds=str(path), fold=number), table, "abc")
        assert (made.train, made.validation, made.test) == (fold.train, fold.validation, fold.test)
    with pytest.raises(ConfigError, match="was made for the shards abc, these are def"):
        sides(SplitConfig(folds=str(path)), table, "def")
