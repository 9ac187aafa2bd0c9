"""What a cross-validation is going to be: what is refused before anything is trained or written."""

import json
import shutil
from pathlib import Path

import pytest
from finetune_toys import folds_settings, make_shards, publish_backbone
from launching import flags

from aar_dist.base.errors import ConfigError, StorageError
from aar_dist.evaluation.cross_validation import cross_validate, workers
from aar_dist.evaluation.study import _placed, open_study
from aar_dist.store.checkpoint import verified
from aar_dist.store.registry import Store
from aar_dist.stream.config import DataConfig
from aar_dist.training.finetuning.config import CrossValidationConfig, FinetuneConfig


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"out": ""}, "out is missing"),
        ({"n_folds": 7}, "n_folds must lie between 2 and the number of subjects, 6; got 7"),
        ({"n_folds": 1}, r"cross_validation\.n_folds must be 2 or more, got 1"),
        ({"seeds": "[1, 1]"}, r"cross_validation\.seeds must be one number from 0 to .*, or several different ones"),
        ({"seeds": "[-1]"}, r"cross_validation\.seeds must be one number from 0"),
        ({"seeds": "[]"}, r"cross_validation\.seeds must be one number"),
        ({"baselines": "rocket"}, "no baseline is called 'rocket'"),
        ({"baselines": "ridge"}, "baseline ridge is for targets; the labels are not"),
        ({"baselines": '["auto", "majority"]'}, "auto stands alone, got auto, majority"),
        ({"baselines": '["majority", "majority"]'}, "majority is named twice"),
        ({"strategies": '{"a/b": {}}'}, r"strategies must be names of letters.*a/b"),
        ({"strategies": '{"majority": {}}'}, "majority is the name of a baseline"),
        ({"strategies": '{"a": {"data.segment_duration": 0.5}}'}, "a sets data.segment_duration, but all share it"),
        ({"strategies": '{"a": {"windows": {"min_share": 0.6}}}'}, "a sets windows, but all share it"),
        ({"strategies": '{"a": {"train.seed": 5}}'}, r"a sets train\.seed, but all share it"),
        ({"strategies": '{"a": {"optim": {"lrr": 1}}}'}, r"\.a: unknown flag --optim\.lrr .did you mean optim\.lr"),
        ({"windows.classes": '["graze"]'}, "no label 'graze' in the shards"),
        ({"min_subjects": 7}, "0 classes have 1 windows or more of 7 subjects"),
        ({"init_from": "store://none@1"}, "has no model 'none'"),
        ({"model.d_embedding": 128}, "d_embedding is 128, but .* has 64"),
        ({"split.test": '["toy/s0"]'}, "lists of subjects are for launch/finetune.py"),
        ({"fold": 1}, r"split\.fold .* for launch/finetune\.py"),
        ({"ranks": 3}, "batch_size 16 is not a multiple of 3 ranks"),
        ({"objective.pooling": "cls"}, "AAREncoder has no token for the whole segment"),
        ({"objective": "aar_dist.objectives.regression.Regression"}, "labels are classes, but objective is Regression"),
        ({"split.folds": "nowhere.json"}, "nowhere.json: No such file"),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_is_written(shards, backbone, tmp_path, more, said):
    with pytest.raises(ConfigError if "init_from" not in more else Exception, match=said):
        cross_validate(flags(folds_settings(shards, backbone, tmp_path / "f") | more), present=lambda out: out)
    assert not (tmp_path / "f").exists()


def test_a_store_that_cannot_be_written_is_told_before_a_fold_trains(shards, backbone, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/models/finetuned: Not a directory"):
        cross_validate(
            flags(folds_settings(shards, backbone, tmp_path / "f") | {"store.path": tmp_path / "file"}),
            present=lambda out: out,
        )
    assert [p.name for p in (tmp_path / "f").iterdir()] == [".lock"]


def test_a_class_that_a_train_side_lacks_is_named_and_allowed_by_a_flag(backbone, tmp_path):
    shown = {"a": [1, 2], "b": [0, 1], "c": [0, 1], "d": [1], "e": [0, 1]}
    odd = make_shards(tmp_path, name="odd", classes_of=shown)
    said = folds_settings(odd, backbone, tmp_path / "f", min_subjects=1)
    with pytest.raises(ConfigError, match=r"the train side of fold . has no window of 'run'.*--allow_missing_classes"):
        open_study(flags(said))
    study = open_study(flags(said | {"allow_missing_classes": "true"}))
    assert "'run'" in study.lacking[0]
    study = open_study(flags(folds_settings(odd, backbone, tmp_path / "f")))
    assert study.left_out == ("run",)
    assert study.config.windows.classes == ["rest", "walk"]


def test_a_folder_of_other_settings_is_refused(shards, backbone, tmp_path, monkeypatch):
    said = folds_settings(shards, backbone, tmp_path / "f")
    both = '"pretrained": {}, "scratch": {"from_scratch": true}'
    open_study(flags(said)).write()
    more = {"seeds": "[578, 2]", "workers": 7, "store.path": tmp_path / "s", "data.reader_threads": 2}
    open_study(flags(said | more)).write()
    monkeypatch.chdir(shards.parent)
    open_study(flags(said | {"data.shards": shards.name, "strategies": f'{{{both}, "new": {{}}}}'})).write()
    for changed, told in (
        ({"optim.lr": 0.01}, r"was made with optim\.lr 0\.001, now it is 0\.01; go on"),
        ({}, r"with cross_validation\.strategies\.new \{\}, now it is nothing"),
        (
            {"strategies": f'{{{both}, "new": {{"optim.lr": 0.5}}}}'},
            r"strategies\.new\.optim\.lr nothing, now it is 0\.5",
        ),
        ({"strategies": f'{{"new": {{}}, {both}}}'}, "the first of .* was pretrained, now it is new; leave the order"),
    ):
        with pytest.raises(ConfigError, match=told):
            open_study(flags(said | changed)).write()
    (tmp_path / "f" / "config.yaml").unlink()
    other = open_study(flags(said | {"fold_seed": 1}))
    with pytest.raises(ConfigError, match="holds other folds"):
        other.write()


def test_other_shards_are_refused_wherever_they_stand(shards, backbone, tmp_path):
    said = folds_settings(shards, backbone, tmp_path / "f")
    open_study(flags(said)).write()
    other = make_shards(tmp_path, classes_of={f"s{i}": [0, 1, 2] for i in range(7)})
    with pytest.raises(ConfigError, match="holds other folds"):
        open_study(flags(said | {"data.shards": other})).write()
    moved = shutil.copytree(shards, tmp_path / "moved")
    open_study(flags(said | {"data.shards": moved})).write()


def test_what_stood_for_itself_may_not_be_laid_over_later(shards, backbone, tmp_path):
    said = folds_settings(shards, backbone, tmp_path / "f")
    open_study(flags(said)).write()
    changed = '{"pretrained": {}, "scratch": {"from_scratch": true, "optim.lr": 0.5}}'
    with pytest.raises(ConfigError, match=r"strategies\.scratch\.optim\.lr nothing, now it is 0\.5"):
        open_study(flags(said | {"strategies": changed})).write()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "cannot be read"),
        ("- 1", "is no configuration of folds"),
        ("train: {}", "is no configuration of folds"),
    ],
)
def test_a_folder_of_something_else_is_one_line(shards, backbone, tmp_path, text, said):
    study = open_study(flags(folds_settings(shards, backbone, tmp_path / "f")))
    study.write()
    (tmp_path / "f" / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"config.yaml {said}.*choose another --out"):
        study.write()


def test_a_start_that_has_learned_the_labels_of_a_test_subject_is_a_leak(shards, backbone, tmp_path):
    """A fine-tuned model names its subjects; its weights are those of ``backbone``."""
    plain, store = verified(Path(backbone)), Store(tmp_path / "tuned")
    taught = {"train": ["toy/s0", "toy/s1"], "validation": ["toy/s2"], "test": []}
    about = {
        "split": taught,
        "shards": open_study(flags(folds_settings(shards, backbone, tmp_path / "g"))).source.identity,
    }
    config = (plain.path / "config.yaml").read_text()
    tuned = store.publish("tuned", plain.weights(), config=config, card="", metrics={}, about=about)
    said = folds_settings(shards, tuned.path, tmp_path / "f")
    with pytest.raises(ConfigError, match=r"tests toy/s., whose labels store://tuned@1 has learned from"):
        open_study(flags(said))
    study = open_study(flags(said | {"allow_leaks": "true"}))
    assert study.pretrained_on() == {f"toy/s{k}": k < 3 for k in range(6)}
    open_study(flags(said | {"strategies": '{"scratch": {"from_scratch": true}}'}))


def test_a_strategy_starts_where_it_says(shards, tmp_path):
    store = tmp_path / "versions"
    for _ in range(2):
        publish_backbone(store)
    said = folds_settings(shards, "store://toy@latest", tmp_path / "f") | {"store.path": store}
    other = {"plain": None, "old": {"pretrained_model_path": "store://toy@1"}, "none": {"init_from": None}}
    starts = open_study(flags(said | {"strategies": json.dumps(other)})).strategies
    assert {name: of.init_from for name, of in starts.items()} == {
        "plain": "store://toy@2", "old": "store://toy@1", "none": None,
    }  # fmt: skip
    moving = json.dumps({"old": {"init_from": "store://toy@latest"}})
    with pytest.raises(ConfigError, match=r"old: store://toy@latest may become another .* give its version's number"):
        open_study(flags(said | {"init_from": "store://toy@1", "strategies": moving}))


def test_who_trains_and_on_what():
    def made(there: int, **options: object) -> tuple[int, int, float]:
        who = workers(CrossValidationConfig(**options), there)
        return who.count, who.cores, who.gpus

    assert made(4) == (4, 1, 1)
    assert made(4, ranks=2) == (2, 2, 2)
    assert made(1, workers=3) == (3, 1, 1 / 3)
    assert made(2, workers=3) == (3, 1, 0.5), "two on one, one on the other"
    assert made(0, workers=3, ranks=2) == (3, 2, 0)
    assert made(0, workers=3, ranks=2, ray_address="auto") == (3, 2, 2), "the cluster may have some"
    assert made(2, gpus=0.25) == (8, 1, 0.25), "four on each"
    assert made(0, gpus=0.25, ray_address="auto") == (1, 1, 0.25), "as many as the cluster has room for"
    assert made(0, workers=2, ranks=2, cores=3) == (2, 6, 0)
    with pytest.raises(ConfigError, match="2 folds of 2 ranks need 4 GPUs, there are 2"):
        made(2, workers=2, ranks=2)


def test_one_subject_only(backbone, tmp_path):
    alone = make_shards(tmp_path, name="odd", classes_of={"s0": [0, 1, 2]})
    with pytest.raises(ConfigError, match=r"one subject only \(odd/s0\): nobody to test on; .* --fold all"):
        open_study(flags(folds_settings(alone, backbone, tmp_path / "f")))


def test_a_url_stays_as_it_is_and_a_folder_is_found_from_anywhere():
    config = FinetuneConfig(data=DataConfig(shards=["s3://bucket/set", "here"]), out="out")
    assert _placed(config).data.shards == ["s3://bucket/set", str(Path("here").resolve())]
