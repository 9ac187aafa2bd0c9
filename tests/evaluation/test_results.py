"""What all folds say together, from predictions written by hand: no network is trained."""

from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as sk

from aar_dist.base.metrics import SCORES
from aar_dist.evaluation.fold_jobs import FoldJob
from aar_dist.evaluation.results import gather
from aar_dist.evaluation.results_text import as_markdown, headline
from aar_dist.evaluation.review.answers import read_answers, together
from aar_dist.stream.windows import WindowTable
from aar_dist.training.finetuning.config import FinetuneConfig
from aar_dist.training.finetuning.predictions import Predictions, write

CLASSES = ("rest", "walk", "run")
SUBJECTS = ("herd/a", "herd/b", "herd/c", "herd/d")
N = 60
"""Windows of each subject."""


def job(out: Path, method: str, kind: str, seed: int, fold: int, right: float) -> FoldJob:
    """A finished fold that tests two subjects, and is right as often as told."""
    folder = out / method / str(seed) / str(fold)
    folder.mkdir(parents=True)
    truth = np.random.default_rng(fold).integers(0, 3, 2 * N)
    rng = np.random.default_rng([seed, fold])
    said = np.where(rng.random(2 * N) < right, truth, rng.integers(0, 3, 2 * N))
    subject = np.repeat(SUBJECTS[2 * fold : 2 * fold + 2], N)
    start_s = np.arange(2 * N, dtype=float)
    table = WindowTable(
        item=np.arange(2 * N), start=np.arange(2 * N), label=truth, dataset=np.full(2 * N, "herd"), subject=subject,
        recording=subject, start_s=start_s, stop_s=start_s + 1, classes=CLASSES,
    )  # fmt: skip
    write(Predictions(table, np.eye(3, dtype=np.float32)[said]), folder, fold, {"best_step": 3})
    (folder / "finished").write_text("{}")
    return FoldJob(method=method, kind=kind, seed=seed, fold=fold, config=FinetuneConfig(out=str(folder)))


def predicted(jobs, classes):
    return together(read_answers(jobs, classes))


@pytest.fixture
def jobs(tmp_path) -> list[FoldJob]:
    """A good network with three seeds, a bad one with one, and a baseline."""
    good = [job(tmp_path, "good", "network", s, k, 0.4 + 0.2 * k + 0.1 * s) for s in (1, 2, 3) for k in (0, 1)]
    rest = [("bad", "network", 0.1), ("majority", "baseline", 0.0)]
    return [*good, *(job(tmp_path, name, kind, 1, k, right) for name, kind, right in rest for k in (0, 1))]


def test_seeds_are_pooled_but_a_window_counts_once(jobs):
    made = {m["name"]: m for m in gather(jobs, CLASSES, ())["methods"]}
    for name, method in made.items():
        mine = [j for j in jobs if j.method == name]
        all_of = predicted(mine, CLASSES)
        assert method["scores"]["accuracy"]["value"] == pytest.approx(np.mean(all_of.y_true == all_of.y_pred))
        f1 = sk.f1_score(all_of.y_true, all_of.y_pred, average="macro")
        assert method["scores"]["macro_f1"]["value"] == pytest.approx(f1)
        assert sum(of["support"] for of in method["per_class"].values()) == 4 * N
        assert {of["n"] for of in method["per_subject"].values()} == {N}
        assert np.sum(method["confusion"]) == 4 * N
    assert made["good"]["seeds"] == [1, 2, 3]
    assert len(made["good"]["runs"]) == 6


def test_the_spread_over_folds_is_not_that_of_seeds(jobs):
    method = gather(jobs, CLASSES, ())["methods"][0]
    of = {(r["seed"], r["fold"]): r["accuracy"] for r in method["runs"]}
    folds = [np.mean([of[s, k] for s in (1, 2, 3)]) for k in (0, 1)]
    seeds = [np.mean([of[s, k] for k in (0, 1)]) for s in (1, 2, 3)]  # the folds are as large
    told = method["scores"]["accuracy"]
    assert told["folds_mean"] == pytest.approx(np.mean(folds))
    assert told["folds_sd"] == pytest.approx(np.std(folds, ddof=1))
    assert told["seeds_sd"] == pytest.approx(np.std(seeds, ddof=1))


def test_differences_are_of_the_same_subjects(jobs):
    told = gather(jobs, CLASSES, ())["comparisons"]
    assert {(c["a"], c["b"]) for c in told} == {("good", "bad"), ("good", "majority"), ("bad", "majority")}
    one = next(c for c in told if (c["a"], c["b"], c["score"]) == ("good", "bad", "accuracy"))
    accuracy = {}
    for name in ("good", "bad"):
        of = predicted([j for j in jobs if j.method == name], CLASSES)
        accuracy[name] = {s: np.mean((of.y_true == of.y_pred)[of.subject == s]) for s in SUBJECTS}
    each = [accuracy["good"][s] - accuracy["bad"][s] for s in SUBJECTS]
    assert one["difference"] == pytest.approx(np.mean(each))
    reach = 3.182 * np.std(each, ddof=1) / np.sqrt(4)  # Student's t of four subjects
    assert one["high"] - one["difference"] == pytest.approx(reach, rel=0.05)
    assert one["difference"] - one["low"] == pytest.approx(reach, rel=0.05)


def test_the_unseen_stand_apart_and_one_alone_has_no_interval(jobs):
    method = gather(jobs, CLASSES, SUBJECTS[:3])["methods"][0]
    of = predicted(jobs[:6], CLASSES).of(SUBJECTS[:3])
    assert method["unseen"]["accuracy"]["value"] == pytest.approx(np.mean(of.y_true == of.y_pred))
    alone = gather(jobs, CLASSES, SUBJECTS[:1])["methods"][0]["unseen"]["accuracy"]
    assert alone["low"] is alone["high"] is None
    assert gather(jobs, CLASSES, ())["methods"][0]["unseen"] is None


def test_differences_over_the_unseen_stand_apart(jobs):
    told = gather(jobs, CLASSES, SUBJECTS[:3])["comparisons_unseen"]
    one = next(c for c in told if (c["a"], c["b"], c["score"]) == ("good", "majority", "accuracy"))
    of = {
        name: predicted([j for j in jobs if j.method == name], CLASSES).of(SUBJECTS[:3])
        for name in ("good", "majority")
    }
    means = {name: np.mean(p.y_true == p.y_pred) for name, p in of.items()}
    assert one["difference"] == pytest.approx(means["good"] - means["majority"])
    assert one["low"] < one["difference"] < one["high"]
    assert gather(jobs, CLASSES, ())["comparisons_unseen"] == []


def test_a_method_that_lacks_a_fold_has_no_scores(jobs):
    (jobs[0].folder / "finished").unlink()
    made = gather(jobs, CLASSES, ())
    assert [m["scores"] is None for m in made["methods"]] == [True, False, False]
    assert len(made["methods"][0]["runs"]) == 5
    assert {(c["a"], c["b"]) for c in made["comparisons"]} == {("bad", "majority")}


def test_the_tables_say_what_was_found(jobs):
    found = gather(jobs, CLASSES, SUBJECTS[:3])
    seen = {name: name == SUBJECTS[3] for name in SUBJECTS}
    about = {
        "name": "herd", "datasets": ["herd"], "simulated": [], "classes": list(CLASSES), "init_from": "store://real@1",
        "n_folds": 2, "seeds": [1, 2, 3], "windows": {"segment_duration": 5.0}, "failed": [], "command": "python",
        "subjects": {s: {"fold": 0, "windows": {"rest": N}, "pretrained_on": seen[s]} for s in SUBJECTS},
    }  # fmt: skip
    text = as_markdown(about | found)
    good = found["methods"][0]
    row = next(line for line in text.splitlines() if line.startswith("| good |"))
    for score in (good["scores"][name] for name in SCORES):
        assert f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]" in row
    every, apart = text.split("Of the subjects that pretraining had no recording of:")
    assert "Differences over these subjects" in apart
    assert (every.count("| good − bad |"), apart.count("| good − bad |")) == (2, 1), "tested, and by every score"
    assert "| all swaps of 4 subjects" not in every
    assert "(all swaps of 4 subjects; p corrected by Holm's method)" in every
    assert "too few subjects to tell |" in every
    assert "Least good at: good: herd/a, herd/b, herd/c;" in text
    said = headline(about | found)
    assert "  good by macro F1: too few subjects to tell from bad (p 0.250), majority (p 0.250)" in said
    assert f"{good['unseen']['accuracy']['value']:.3f} [" in apart
    assert "| herd/d | 0 | yes | 60 |" in apart
    assert "no recording of" not in as_markdown(about | gather(jobs, CLASSES, ()))
    del found["methods"][1]["scores"]["auroc"]
    heads = ("| method |", "| good |", "| bad |")
    rows = [line.split(" | ") for line in as_markdown(about | found).splitlines() if line.startswith(heads)]
    auroc = good["scores"]["auroc"]
    said = f"{auroc['value']:.3f} [{auroc['low']:.3f}, {auroc['high']:.3f}]"
    assert [row[4] for row in rows[:3]] == ["AUROC", said, "–"]


def test_the_study_s_own_network_stands_first_wherever_it_is_named(tmp_path):
    names = ("scratch", "frozen", "pretrained")
    jobs = [job(tmp_path, name, "network", 1, k, 0.5 + 0.1 * k) for name in names for k in (0, 1)]
    told = [c for c in gather(jobs, CLASSES, ())["comparisons"] if c["score"] == "macro_f1"]
    assert [(c["a"], c["b"], c["planned"], c["n_pairs"]) for c in told] == [
        ("scratch", "frozen", False, 3), ("pretrained", "scratch", True, 2), ("pretrained", "frozen", True, 2),
    ]  # fmt: skip
