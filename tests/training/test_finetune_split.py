"""Who trains, who selects, who tests; what of the labels and sides is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from finetune_toys import make_shards

from aar_dist.base.config import ClassSpec
from aar_dist.base.errors import ConfigError
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig
from aar_dist.stream.windows import WindowConfig, open_windows
from aar_dist.training.config import ENCODER
from aar_dist.training.finetuning.config import CLASSIFICATION, FinetuneConfig, FinetuneTrainConfig
from aar_dist.training.finetuning.split import SplitConfig, hold_out, sides
from aar_dist.training.finetuning.task import open_task, resolved


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """``a`` alone runs, ``b`` alone rests."""
    shown = {"a": [1, 2], "b": [0, 1], "c": [1], "d": [1], "e": [1]}
    return make_shards(tmp_path_factory.mktemp("uneven"), name="odd", classes_of=shown)


def config(shards, **more) -> FinetuneConfig:
    data = DataConfig(shards=[str(shards)], segment_duration=1.0, max_window_length=20)
    return FinetuneConfig(**{"data": data, "split": SplitConfig(test=["toy/s0"]), **more})


def folds_file(path, *folds, **more) -> str:
    names = ("train", "validation", "test")
    said = {
        "folds": [dict(zip(names, fold, strict=True)) for fold in folds],
        "classes": ["rest", "run", "walk"],
        **more,
    }
    path.write_text(json.dumps(said))
    return str(path)


FOLD = (["toy/s1", "toy/s2", "toy/s3"], ["toy/s4", "toy/s5"], ["toy/s0"])


def test_sides_share_nobody_and_lose_nobody(shards):
    task = open_task(config(shards))
    made = task.sides
    assert made.test == ("toy/s0",)
    assert len(made.validation) == 1
    assert sorted(made.train + made.validation + made.test) == [f"toy/s{i}" for i in range(6)]
    for table, subjects in ((task.train, made.train), (task.validation, made.validation), (task.test, made.test)):
        assert set(table.subject) == set(subjects)


def test_the_draw_depends_on_its_seed_alone(shards):
    drawn = {open_task(config(shards, split=SplitConfig(test=["toy/s0"], selection_seed=s))).sides for s in range(8)}
    assert len({made.validation for made in drawn}) > 2
    assert open_task(config(shards)).sides == open_task(config(shards)).sides


def test_the_sides_of_a_fold(shards, tmp_path):
    path = folds_file(tmp_path / "folds.json", FOLD, (["toy/s0", "toy/s1"], [], ["toy/s2"]))
    made = open_task(config(shards, split=SplitConfig(folds=path))).sides
    assert (list(made.train), list(made.validation), list(made.test)) == FOLD
    second = open_task(config(shards, split=SplitConfig(folds=path, fold=1))).sides
    assert len(second.validation) == 1
    assert {*second.train, *second.validation} == {"toy/s0", "toy/s1"}


def test_all_subjects_train_the_final_model(shards):
    task = open_task(config(shards, split=SplitConfig(fold="all")))
    assert len(task.sides.train) == 6
    assert len(task.validation) == len(task.test) == 0


def test_nobody_is_held_out_whose_class_no_other_shows(uneven):
    data = DataConfig(shards=[str(uneven)], segment_duration=1.0)
    _, table = open_windows(data, WindowConfig())
    for seed in range(10):
        split = SplitConfig(test=["odd/c"], validation_share=0.5, selection_seed=seed)
        made = sides(split, table, "")
        assert {"odd/a", "odd/b"} <= {*made.train}
        assert made == hold_out(replace(made, train=made.train + made.validation, validation=()), table, split)


def test_a_smaller_share_is_part_of_a_larger_one_and_keeps_the_classes_it_can(tmp_path):
    """Three classes, of which each subject shows one: three subjects are needed, and the first three have them."""
    shown = {f"s{i}": [i % 3] if i else [0, 1, 2] for i in range(11)}
    data = DataConfig(shards=[str(make_shards(tmp_path, name="few", classes_of=shown))], segment_duration=1.0)
    _, table = open_windows(data, WindowConfig())
    for seed in range(4):
        split = SplitConfig(test=["few/s0"], selection_seed=seed)
        whole = sides(split, table, "")
        before: set[str] = set()
        for share, n in ((0.01, 1), (0.05, 1), (0.1, 1), (0.375, 3), (0.5, 4), (0.99, 8)):
            made = sides(replace(split, train_share=share), table, "")
            assert (made.validation, made.test) == (whole.validation, whole.test)
            assert {*made.train} | {*made.unused} == {*whole.train}
            assert len(made.train) == n
            assert before <= {*made.train}
            before = {*made.train}
            classes = set(table.label[np.isin(table.subject, made.train)].tolist())
            assert len(classes) == min(n, 3), "as many as there can be"


def test_what_a_share_really_is_is_told_and_its_classes_are_no_error(uneven):
    split = SplitConfig(test=["odd/c"], validation=["odd/d"], train_share=0.01)
    task = open_task(config(uneven, split=split))
    told = task.amount(0.01)
    assert told == {
        "share": 0.01, "subjects": 1, "of_subjects": told["of_subjects"], "windows": len(task.train),
        "missing_classes": list(task.missing),
    }  # fmt: skip
    assert told["of_subjects"] > 1
    assert task.missing, "one subject has not all of them"
    assert task.sides.told()["unused"] == list(task.sides.unused)
    for share in (0.0, 1.5):
        with pytest.raises(ConfigError, match=r"split\.train_share must lie above 0 and be 1 at most"):
            SplitConfig(train_share=share)


def test_balancing_twice_is_refused():
    with pytest.raises(ConfigError, match=r"train\.class_weights must be none where train\.sampling is balanced"):
        FinetuneTrainConfig(sampling="balanced", class_weights="inverse")


def test_a_class_the_train_side_lacks_is_named_and_allowed_by_a_flag(uneven):
    split = SplitConfig(test=["odd/a"])
    with pytest.raises(ConfigError, match=r"has the class run: .* --allow_missing_classes true"):
        open_task(config(uneven, split=split))
    task = open_task(config(uneven, split=split, train=FinetuneTrainConfig(allow_missing_classes=True)))
    assert task.missing == ("run",)
    weighted = config(uneven, train=FinetuneTrainConfig(class_weights="inverse"))
    assert resolved(weighted, task)[1].init_args["class_weights"][1] == 0


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({}, "nobody to test on; give split.folds"),
        ({"test": ["toy/s9"]}, r"split.test: no labelled window of a subject 'toy/s9' .* did you mean toy/s\d"),
        ({"test": ["herd/12"]}, "no labelled window of a subject 'herd/12'"),
        ({"test": ["toy/s0"], "train": ["toy/s0", "toy/s1"]}, "toy/s0 stands on two sides, train and test"),
        ({"test": ["toy/s0"], "train": ["toy/s1"]}, "one subject only to train on"),
        ({"test": [f"toy/s{i}" for i in range(6)]}, "no subject is left to train on"),
        ({"folds": "FOLDS", "fold": 1}, "split.fold 1 is out of range: .* has folds 0 to 0"),
        ({"folds": "nowhere.json"}, "nowhere.json: No such file or directory; expected a folds.json"),
        ({"folds": "EMPTY"}, "has no folds"),
        ({"folds": "OTHER_SUBJECTS"}, "no labelled window of a subject 'herd/1'"),
        ({"folds": "OTHER_CLASSES"}, r"was made for the classes \['grazing'\], the windows carry"),
        ({"folds": "OTHER_SHARDS"}, "was made for the shards 0123"),
    ],
)
def test_splits_that_cannot_be(shards, tmp_path, split, said):
    files = {
        "FOLDS": folds_file(tmp_path / "f.json", FOLD),
        "EMPTY": folds_file(tmp_path / "e.json"),
        "OTHER_SUBJECTS": folds_file(tmp_path / "s.json", (["herd/1"], ["toy/s1"], ["toy/s0"])),
        "OTHER_CLASSES": folds_file(tmp_path / "c.json", FOLD, classes=["grazing"]),
        "OTHER_SHARDS": folds_file(tmp_path / "i.json", FOLD, shards="0123456789abcdef"),
    }
    if "folds" in split:
        split = split | {"folds": files.get(split["folds"], split["folds"])}
    with pytest.raises(ConfigError, match=said):
        open_task(config(shards, split=SplitConfig(**split)))


def test_one_subject_only(tmp_path):
    alone = make_shards(tmp_path, name="toy", classes_of={"s0": [0, 1, 2]})
    with pytest.raises(ConfigError, match="one subject only"):
        open_task(config(alone))
    assert len(open_task(config(alone, split=SplitConfig(fold="all"))).train) > 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"n_classes": 4}, "n_classes is 4, but the labels have 3 classes, rest, run, walk; leave n_classes out"),
        ({"windows": WindowConfig(classes=["graze"])}, "no label 'graze'"),
        ({"windows": WindowConfig(classes=["walk"])}, "one class only, walk"),
    ],
)
def test_labels_that_disagree(shards, more, said):
    with pytest.raises(ConfigError, match=said):
        open_task(config(shards, **more))


def test_windows_longer_than_the_model_takes(shards):
    data = DataConfig(shards=[str(shards)], segment_duration=2.0, max_window_length=20)
    with pytest.raises(ConfigError, match=r"2 s at 20 Hz has 40 samples, but the model takes 20 .* to 1 or less"):
        open_task(config(shards, data=data))


def test_targets_are_standardised_by_the_train_side(tmp_path):
    root = tmp_path / "recordings" / "hr"
    for subject, beats in {"a": 60.0, "b": 80.0, "c": 200.0}.items():
        acc = SensorData(values=np.ones((200, 1), "<f4"), rate_hz=10.0, units="g", axes=("x",))
        target = np.repeat([beats, beats + 10], 100)
        dataset_to_hdf5(root, dataset="hr", species="man", subject=subject, sensors={"acc": acc}, label=target)
    build(root.parent, tmp_path / "set", BuildOptions(datasets=("hr",), longest_segment_s=1.0), workers=1)
    split = SplitConfig(train=["hr/a"], validation=["hr/b"], test=["hr/c"])
    regression = ClassSpec("aar_dist.objectives.regression.Regression")
    given = config(tmp_path / "set", split=split, objective=regression)
    made, head = resolved(given, open_task(given))
    assert made.windows.classes is None
    assert head.init_args == {"n_channels": 1, "target_mean": 65.0, "target_std": 5.0}
    balanced = replace(given, train=FinetuneTrainConfig(sampling="balanced"))
    with pytest.raises(ConfigError, match=r"train\.sampling balanced evens out classes, but the labels are targets"):
        resolved(balanced, open_task(given))
    with pytest.raises(ConfigError, match="the labels are targets, but objective is Classification"):
        resolved(replace(given, objective=ClassSpec(CLASSIFICATION)), open_task(given))


def test_what_follows_from_the_labels(shards):
    given = config(shards, avg_pool=True, n_classes=3, model=ClassSpec(ENCODER))
    made, head = resolved(given, open_task(given))
    assert made.windows.classes == ["rest", "run", "walk"]
    assert head.init_args == {"pooling": "average", "n_channels": 3, "n_classes": 3, "class_weights": None}
    wrong = replace(given, objective=ClassSpec("aar_dist.objectives.regression.Regression"))
    with pytest.raises(ConfigError, match="the labels are classes, but objective is Regression"):
        resolved(wrong, open_task(given))
    both = replace(given, objective=ClassSpec(CLASSIFICATION, {"pooling": "cls"}))
    with pytest.raises(ConfigError, match=r"avg_pool averages, objective\.pooling is cls"):
        resolved(both, open_task(given))
