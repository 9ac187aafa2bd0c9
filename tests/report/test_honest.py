"""What the page must not say."""

import json
import shutil
from pathlib import Path

import made
import numpy as np
import pytest
import yaml
from test_page import copy, results_of, text_of

from aar_dist.report.animals import animals, closed_up
from aar_dist.report.command import main
from aar_dist.report.page import page
from aar_dist.shards.format import read_info


def configured(folder: Path, **config) -> Path:
    told = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(told | config))
    return folder


@pytest.mark.parametrize(("scratch", "start"), [(True, "random weights"), (False, "store://herd@1")])
def test_a_network_from_scratch_starts_from_nothing(tmp_path, scratch, start):
    """Its configuration names the model that it is compared with."""
    folder = configured(made.make_finetuning(tmp_path / "run"), init_from="store://herd@1", from_scratch=scratch)
    assert f"starts from {start}" in text_of(page([folder]))


def test_a_model_of_all_subjects_says_nothing_of_others(tmp_path):
    folder = configured(made.make_finetuning(tmp_path / "run"), split={"fold": "all"})
    (folder / "metrics.json").unlink()
    words = text_of(page([folder]))
    assert "Every subject trained this model: nothing here says how it does on others" in words
    assert "no validation loss yet" not in words
    assert "the signal is predicted well" not in words


def test_a_test_side_that_was_chosen_is_no_fold(tmp_path):
    folder = made.make_finetuning(tmp_path / "run")
    assert "of the test side of fold 0;" in text_of(page([folder]))
    configured(folder, split={"fold": 0, "test": ["herd/0", "herd/3"]})
    assert "of the subjects chosen for the test;" in text_of(page([folder]))


def test_a_baseline_that_is_not_complete_is_there(folds, tmp_path):
    methods = [m | {"scores": None} if m["kind"] == "baseline" else m for m in results_of(folds)["methods"]]
    words = text_of(page([copy(folds, tmp_path / "folds", methods=methods)]))
    assert "no baseline has all of its folds yet (majority, logistic and minirocket) to compare it with" in words
    methods = [m for m in methods if m["kind"] == "network"]
    assert "there is no baseline to compare it with" in text_of(page([copy(folds, tmp_path / "none", methods=methods)]))


def test_a_probe_of_the_stored_model_is_no_baseline(folds, tmp_path):
    methods = [m | {"kind": "probe"} if m["name"] == "minirocket" else m for m in results_of(folds)["methods"]]
    words = text_of(page([copy(folds, tmp_path / "folds", methods=methods)]))
    assert "the best baseline, logistic, has" in words
    assert "the best baseline, minirocket" not in words


def test_ties_are_told(folds, tmp_path):
    methods = results_of(folds)["methods"]
    of = {m["name"]: m for m in methods}
    of["minirocket"]["per_subject"] = json.loads(json.dumps(of["pretrained"]["per_subject"]))
    of["minirocket"]["per_subject"]["herd/0"]["macro_f1"] = 0.0
    words = text_of(page([copy(folds, tmp_path / "folds", methods=methods)]))
    assert "Better on 1 of 6 subjects, the same on 5." in words


def test_subjects_that_no_fold_tests_are_not_held_out(folds, tmp_path):
    subjects = results_of(folds)["subjects"]
    n = sum(subjects["herd/5"]["windows"].values())
    whole = sum(sum(of["windows"].values()) for of in subjects.values())
    subjects["herd/5"]["fold"] = None
    words = text_of(page([copy(folds, tmp_path / "folds", subjects=subjects)]))
    assert "on 5 held-out subjects" in words
    assert f"{whole - n} labelled windows of 10 s of 5 subjects" in words


def test_another_build_of_the_shards_is_not_what_was_read(folds, tmp_path, simulated_shards):
    config = {"data": {"shards": [str(simulated_shards)]}}
    for shards, same in ((read_info(simulated_shards)["identity"], True), ("cd" * 32, False)):
        folder = configured(copy(folds, tmp_path / f"{same}", shards=shards), **config)
        words = text_of(page([folder]))
        assert ("another build lies there now" in words) != same
        assert ("sim_horses train" in words) == same


def test_runs_of_one_name_are_told_apart(folds, pretraining, tmp_path):
    other = shutil.copytree(folds, tmp_path / "other")
    html = page([folds, other, pretraining])
    for folder in (folds, other):
        assert html.count(f">herd ({folder})<") == 2  # in the overview and above its part
    assert f"({pretraining})" not in html


def test_a_run_may_be_given_as_a_dot(tmp_path, monkeypatch):
    folder = made.make_finetuning(tmp_path / "my_run")
    monkeypatch.chdir(folder)
    main(["."])
    words = text_of((folder / "report.html").read_text())
    assert "folder my_run" in words
    assert "--config my_run/config.yaml" in words


def test_no_secret_comes_from_the_results(folds, tmp_path):
    url = "https://me:secret@host/store?sig=secret"
    changes = {"failed": [{**made.FAILED, "reason": f"{url}: gone"}], "init_from": url, "command": f"x --store {url}"}
    html = page([copy(folds, tmp_path / "folds", **changes)])
    assert "secret" not in html
    assert html.count("https://host/store") == 3


def table(recording, start, stop):
    n = len(start)
    said = {"subject": ["a"] * n, "recording": recording, "start_s": start, "stop_s": stop}
    return {name: np.array(column) for name, column in (said | {"y_true": [0] * n, "y_pred": [0] * n}).items()}


def test_time_under_two_windows_counts_once():
    start = np.arange(0, 600, 5.0)
    begins, ends = closed_up(table(["r"] * 120, start, start + 10))
    assert (ends[:-1] == begins[1:]).all()
    (animal,) = animals(table(["r"] * 120, start, start + 10), ["x"], ["a"])
    assert animal.whole_s == animal.shown_s == 605


def test_the_tenth_recording_comes_behind_the_second():
    said = table(["r_10", "r_2"], [0.0, 0.0], [30.0, 10.0])
    said["y_true"] = np.array([0, 1])
    (animal,) = animals(said, ["x", "y"], ["a"])
    first = str(animal.svg).split("label: y")[0].rsplit("d=", 1)[1]
    assert first.startswith('"M0.00')


def test_a_target_of_many_subjects_says_which_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("aar_dist.report.animals.MOST_PANELS", 3)
    monkeypatch.setattr("aar_dist.report.animals.MOST_WINDOWS", 50)
    words = text_of(page([made.make_regression(tmp_path / "folds")]))
    assert "In time: the first 3 of 4 subjects;" in words
    assert "against measured, 50 of 160 windows" in words
