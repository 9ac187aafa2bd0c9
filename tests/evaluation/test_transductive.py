"""Whom pretraining has seen: by samples where its shard set is here, by names where it is not, or not known."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from finetune_toys import folds_settings, make_shards, publish_backbone
from launching import flags

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.audit_command import main as audit
from aar_dist.evaluation.audit_kept import with_pretraining
from aar_dist.evaluation.cross_validation import announce
from aar_dist.evaluation.study import open_study
from aar_dist.evaluation.tracks import Track, tracks_of_shards
from aar_dist.evaluation.transductive import _between, pretrainings, seen_by
from aar_dist.shards.build import BuildOptions, build
from aar_dist.shards.format import read_info
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.store.registry import Store
from aar_dist.stream.config import DataConfig
from aar_dist.stream.source import open_source


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> tuple[Path, Path]:
    """Two shard sets: what a model was pretrained on, and what is tested. The recording of ``wild/b`` is that of
    ``toy/s3``."""
    root = tmp_path_factory.mktemp("sets")
    tested = make_shards(root / "toy")
    make_shards(root / "wild", name="wild", classes_of={name: [1, 2, 0] for name in "acd"})
    source = next((root / "toy/recordings/toy").glob("*_s3_*"))
    copy = Path(shutil.copy(source, root / "wild/recordings/wild/cow_b_ds_0.hdf5"))
    with h5py.File(copy, "r+") as file:
        file.attrs["dataset"], file.attrs["subject"] = "wild", "b"
    options = BuildOptions(datasets=("wild",), longest_segment_s=2.0, pack={"acc": "int16"}, train_ratio=0.9)
    return build(root / "wild/recordings", root / "wild/again", options, workers=1).folder, tested


def model(store: Path, where: Path, **about: object) -> Checkpoint:
    """A version that says it was pretrained on a shard set."""
    plain = publish_backbone(store, name="plain")
    text = (plain.path / "config.yaml").read_text().replace("shards: []", f"shards: [{where}]")
    assert str(where) in text
    about = {"shards": read_info(where)["identity"], "datasets": ["wild"], **about}
    return Store(store).publish("pre", plain.weights(), config=text, card="", metrics={}, about=about)


def answers(checkpoint: Checkpoint, tested: Path, *more: str) -> dict[str, bool | None]:
    tracks = tracks_of_shards([tested])
    return seen_by(*pretrainings(checkpoint), {*(t.subject for t in tracks), *more}, tracks).of


def test_a_recording_is_found_in_another_shard_set_though_it_was_packed(pretrained, tmp_path, capsys):
    shards, tested = pretrained
    checkpoint = model(tmp_path, shards)
    trained = set(open_source(DataConfig(shards=[str(shards)], segment_duration=1.0), "train").subjects())
    assert "wild/b" in trained
    assert answers(checkpoint, tested) == {f"toy/s{k}": k == 3 for k in range(6)}
    audit([str(tested), "--pretraining", str(checkpoint.path)])
    told = capsys.readouterr().out
    assert (
        "in pretraining: toy/cow_s3_ds_0 of toy/s3 from 0 s and wild/cow_b_ds_0 of wild/b from 0 s share 120 s" in told
    )
    assert "transductive: pretraining saw signals, never labels, of 1 of 6 subjects, toy/s3" in told
    audit([str(tested), "--pretraining", str(shards)])
    assert capsys.readouterr().out == told


def test_a_study_tells_it_and_reads_the_samples_once(pretrained, tmp_path, capsys, monkeypatch):
    shards, tested = pretrained
    checkpoint = model(tmp_path, shards)
    study = open_study(flags(folds_settings(tested, str(checkpoint.path), tmp_path / "f")))
    study.write()
    announce(study)
    assert "transductive: pretraining saw signals, never labels, of 1 of 6 subjects, toy/s3" in capsys.readouterr().out
    monkeypatch.setattr("aar_dist.evaluation.audit_kept.seen_by", None)
    start = ([study.checkpoint], None)
    again = with_pretraining(
        replace(study.audit, seen=None), start, study.source, list(study.pretrained_on()), study.out
    )
    assert again == study.audit
    assert study.pretrained_on() == {f"toy/s{k}": k == 3 for k in range(6)}
    assert study.audit.seen.as_json()["transductive"] == ["toy/s3"]


def test_where_the_shard_set_is_gone_names_are_left(pretrained, tmp_path):
    shards, tested = pretrained
    gone = Path(shutil.copytree(shards, tmp_path / "gone"))
    plain = model(tmp_path / "a", gone)
    told = model(tmp_path / "b", gone, subjects=["wild/a", "toy_2020/s1"], datasets=["toy_2020", "wild"])
    family = model(tmp_path / "c", gone, datasets=["toy_2020"])
    shutil.rmtree(gone)
    assert answers(plain, tested, "wild/a") == {**{f"toy/s{k}": False for k in range(6)}, "wild/a": None}
    assert answers(told, tested, "wild/a") == {**{f"toy/s{k}": k == 1 for k in range(6)}, "wild/a": True}
    assert answers(family, tested) == {f"toy/s{k}": None for k in range(6)}
    seen = seen_by(*pretrainings(plain), {"toy/s0"}, tracks_of_shards([tested]))
    assert seen.compared == "names"
    assert seen.remarks == (f"store://pre@1: its shard set {gone} is not here; names were compared",)


def test_a_shard_set_that_became_another_counts_as_gone(pretrained, tmp_path):
    shards, tested = pretrained
    other = model(tmp_path, shards, shards="0123")
    (remark,) = seen_by(*pretrainings(other), {"toy/s0"}, tracks_of_shards([tested])).remarks
    assert "is not the one it was trained on; names were compared" in remark


def test_the_models_that_it_came_from_are_asked_as_well(pretrained, tmp_path):
    shards, tested = pretrained
    first = model(tmp_path, shards)
    text = (first.path / "config.yaml").read_text().replace("init_from: null", f"init_from: {first.path}")
    empty = text.replace(f"shards:\n  - {shards}", "shards: []").replace(f"shards: [{shards}]", "shards: []")
    about = {"datasets": ["moon"], "subjects": ["moon/x"], "shards": "none"}
    second = Store(tmp_path).publish("pre", first.weights(), config=empty, card="", metrics={}, about=about)
    assert answers(second, tested) == {f"toy/s{k}": k == 3 for k in range(6)}
    lost = empty.replace(str(first.path), "store://nowhere@1")
    third = Store(tmp_path).publish("pre", first.weights(), config=lost, card="", metrics={}, about=about)
    made, remarks = pretrainings(third, str(tmp_path))
    assert remarks == ["store://pre@3 started from store://nowhere@1, which cannot be read"]
    assert set(seen_by(made, remarks, {"toy/s0"}, tracks_of_shards([tested])).of.values()) == {None}


def started_from(first: Checkpoint, shards: Path, store: Path) -> Checkpoint:
    """A model that came from another, and was trained on something else."""
    text = (first.path / "config.yaml").read_text().replace("init_from: null", f"init_from: {first.path}")
    text = text.replace(f"shards:\n  - {shards}", "shards: []").replace(f"shards: [{shards}]", "shards: []")
    about = {"datasets": ["moon"], "subjects": ["moon/x"], "shards": "none"}
    return Store(store).publish("next", first.weights(), config=text, card="", metrics={}, about=about)


def test_labels_that_were_learned_on_the_way_are_a_leak(pretrained, backbone, tmp_path):
    """Under another name, by a model that another one came from, and by the start of one strategy alone."""
    shards, tested = pretrained
    tuned = model(tmp_path, shards, split={"train": ["wild/b"], "validation": ["wild/a"], "test": []})
    later = started_from(tuned, shards, tmp_path)
    tracks = tracks_of_shards([tested])
    seen = seen_by(*pretrainings(later), {f"toy/s{k}" for k in range(6)}, tracks)
    assert seen.taught == {"toy/s3": "store://pre@1"}
    assert "labels, too, of toy/s3" in seen.lines()
    for start, more in ((later.path, {}), (backbone, {"strategies": f'{{"own": {{"init_from": "{later.path}"}}}}'})):
        said = folds_settings(tested, str(start), tmp_path / "f", **more)
        with pytest.raises(ConfigError, match=r"tests toy/s3, whose labels store://pre@1 has learned from"):
            open_study(flags(said))
    assert open_study(flags(said | {"allow_leaks": "true"})).pretrained_on()["toy/s3"]


def test_a_place_of_another_subject_is_compared():
    values = np.random.default_rng(0).normal(size=(500, 3)).astype("<f4")
    ours, theirs = (
        Track("herd", f"herd/{who}", "r", "acc", 10.0, 500, None, lambda a, b: values[a:b], "r")
        for who in ("1", "cow1")
    )
    (pair,) = _between([ours], [theirs])
    assert pair.subjects == ("herd/1", "herd/cow1")
    assert {name for _, name in pair.places} == {"r"}
