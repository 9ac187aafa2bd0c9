"""What a reviewer asks for, from predictions written by hand: calibration, abstention, few subjects, tables."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as sk
from hypothesis import given
from hypothesis import strategies as st
from launching import ROOT

from aar_dist.base.stats import calibration as cal
from aar_dist.base.stats.abstention import best_area, risk_coverage
from aar_dist.base.stats.agreement import agreement
from aar_dist.evaluation.fold_jobs import FoldJob
from aar_dist.evaluation.results import gather
from aar_dist.evaluation.review.tables import write_tables
from aar_dist.stream.windows import WindowTable
from aar_dist.training.finetuning.config import FinetuneConfig
from aar_dist.training.finetuning.folds import Fold
from aar_dist.training.finetuning.predictions import VALIDATION, Predictions, file_of, write, write_windows

CLASSES = ("rest", "walk", "run")
N = 50
"""Windows of each subject."""
SUBJECTS = tuple(f"herd/{name}" for name in "abcdef")


def said(subjects, heat: float, seed, *, graded: bool = True) -> Predictions:
    """A model whose probabilities are right at this temperature of theirs."""
    rng = np.random.default_rng(seed)
    n = N * len(subjects)
    true = np.exp(rng.normal(0, 1.5, (n, 3)))
    true /= true.sum(1, keepdims=True)
    label = (rng.random(n)[:, None] > true.cumsum(1)).sum(1)
    told = cal.at_temperature(true, 1 / heat).astype(np.float32)
    subject, start = np.repeat(subjects, N), np.arange(n, dtype=float)
    table = WindowTable(
        item=np.arange(n), start=np.arange(n), label=label, dataset=np.full(n, "herd"), subject=subject,
        recording=subject, start_s=start, stop_s=start + 1, classes=CLASSES,
    )  # fmt: skip
    return Predictions(table, told if graded else np.eye(3, dtype=np.float32)[told.argmax(1)], graded=graded)


def job(out: Path, method: str, kind: str, fold: int, heat: float, fraction: float = 1.0, seed: int = 1) -> FoldJob:
    """A finished fold; folds 0 to 2 are one repeat, 3 to 5 another."""
    folder = out / f"{method}_{fraction:g}_{seed}_{fold}"
    folder.mkdir(parents=True)
    at = 2 * (fold % 3)
    test, choose = SUBJECTS[at : at + 2], SUBJECTS[(at + 2) % 6 : (at + 2) % 6 + 2]
    if kind == "network":
        write_windows(said(choose, heat, [seed, fold, 9]), file_of(folder, VALIDATION, fold))
    write(said(test, heat, [seed, fold], graded=method != "sure"), folder, fold, {"method": method})
    (folder / "finished").write_text("{}")
    config = FinetuneConfig(out=str(folder))
    return FoldJob(method=method, kind=kind, seed=seed, fold=fold, config=config, fraction=fraction)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> list[FoldJob]:
    """A network that is too sure, a baseline that is not, and one without probabilities."""
    out = tmp_path_factory.mktemp("review")
    kinds = {"net": ("network", 2.5), "plain": ("baseline", 1.0), "sure": ("baseline", 1.0)}
    return [job(out, name, kind, fold, heat) for name, (kind, heat) in kinds.items() for fold in range(3)]


@pytest.fixture(scope="module")
def made(jobs) -> dict:
    return {m["name"]: m for m in gather(jobs, CLASSES, ())["methods"]}


def test_the_temperature_is_found_and_probabilities_are_then_worth_what_they_say(made):
    told = made["net"]["calibration"]
    assert told["temperature"]["median"] == pytest.approx(2.5, rel=0.35)
    assert told["after"]["ece"] < 0.07 < 0.1 < told["before"]["ece"]
    for name in ("nll", "brier"):
        assert told["after"][name]["value"] < told["before"][name]["value"]
        assert told["after"][name]["low"] < told["after"][name]["value"] < told["after"][name]["high"]
    assert sum(one["n"] for one in told["before"]["bins"]) == N * 6
    assert made["plain"]["calibration"]["temperature"] is made["plain"]["calibration"]["after"] is None
    assert made["sure"]["calibration"] is made["sure"]["abstention"] is None
    assert "auroc" not in made["sure"]["scores"]


def test_only_the_validation_side_has_a_say_in_the_temperature(jobs, tmp_path):
    """Other test windows, the same temperatures and thresholds."""
    mine = [job(tmp_path, "net", "network", fold, 2.5) for fold in range(3)]
    before = gather(mine, CLASSES, ())["methods"][0]
    for one in mine:
        write(said(SUBJECTS[:2], 0.3, 77), one.folder, one.fold, {})
    after = gather(mine, CLASSES, ())["methods"][0]
    assert after["calibration"]["temperature"] == before["calibration"]["temperature"]
    assert after["calibration"]["before"] != before["calibration"]["before"]


def test_scores_of_probabilities_are_those_of_scikit_learn(jobs, made):
    parts = [pq.read_table(file_of(j.folder, "predictions", j.fold)) for j in jobs if j.method == "net"]
    label = np.concatenate([t["y_true"].to_numpy() for t in parts])
    probability = np.concatenate([np.array(t["probability"].to_pylist()) for t in parts])
    probability /= probability.sum(1, keepdims=True)
    before = made["net"]["calibration"]["before"]
    assert before["nll"]["value"] == pytest.approx(sk.log_loss(label, probability), rel=1e-4)
    assert before["brier"]["value"] == pytest.approx(((probability - np.eye(3)[label]) ** 2).sum(1).mean())
    auroc = sk.roc_auc_score(label, probability, multi_class="ovr")
    assert made["net"]["scores"]["auroc"]["value"] == pytest.approx(auroc)
    one = sk.roc_auc_score(label == 1, probability[:, 1])
    assert made["net"]["per_class"]["walk"]["auroc"] == pytest.approx(one)
    assert made["net"]["per_class"]["walk"]["f1_low"] < made["net"]["per_class"]["walk"]["f1"]
    assert made["net"]["per_class"]["walk"]["subjects"] == 6


def test_a_threshold_keeps_what_it_promises(made):
    told = made["net"]["abstention"]
    assert told["aurc_best"] < told["aurc"] < told["risk"]
    ninety, more = told["wanted"]
    assert more["chosen"]["coverage"]["value"] < ninety["chosen"]["coverage"]["value"] < 1
    assert ninety["chosen"]["accuracy"]["value"] == pytest.approx(0.9, abs=0.08)
    assert ninety["chosen"]["accuracy"]["low"] < 0.9 < ninety["chosen"]["accuracy"]["high"]
    assert made["plain"]["abstention"]["wanted"][0]["chosen"] is None
    coverage, risk = np.array(told["curve"]).T
    assert coverage[-1] == 1
    assert (np.diff(coverage) > 0).all()
    assert risk[-1] == pytest.approx(told["risk"], abs=1e-4)


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=40), st.randoms())
def test_curves_and_bins_do_not_depend_on_the_order_of_windows(windows, random):
    mixed = random.sample(windows, len(windows))
    for of in (lambda c, r: cal.reliability(c, r, 4), lambda c, r: np.stack([*vars(risk_coverage(c, r)).values()])):
        one, other = (of(*np.array(w, float).T) for w in (windows, mixed))
        np.testing.assert_array_equal(one, other) if isinstance(one, np.ndarray) else None
        assert isinstance(one, np.ndarray) or one == other
    curve = risk_coverage(*np.array(windows, float).T)
    right = np.array([r for _, r in windows])
    assert curve.risk[-1] == pytest.approx(1 - right.mean())
    for threshold, coverage, risk in zip(curve.threshold, curve.coverage, curve.risk, strict=True):
        kept = np.array([c >= threshold for c, _ in windows])
        assert (coverage, risk) == pytest.approx((kept.mean(), 1 - right[kept].mean()))


def test_known_values():
    assert cal.calibration_error(cal.reliability([0.9] * 10, [True] * 5 + [False] * 5)) == pytest.approx(0.4)
    curve = risk_coverage([4, 3, 2, 1], [True, True, False, True])
    assert curve.risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4])
    assert curve.area == pytest.approx((1 / 3 + 1 / 4) / 4)
    assert (curve.coverage_at(0.75), curve.coverage_at(1.0), curve.threshold_at(0.9)) == (1.0, 0.5, 3.0)
    assert curve.threshold_at(0.75) == -np.inf, "nothing is to be kept back"
    assert risk_coverage([1, 1], [False, False]).threshold_at(0.9) is None
    many = np.arange(100_000) >= 30_000
    assert best_area(0.3) == pytest.approx(risk_coverage(np.arange(100_000), many).area, abs=1e-4)
    assert cal.temperature(np.tile([0.9, 0.1], (5, 1)), np.zeros(5, int)) > 0.05, "few windows that are all right"


def test_agreement_counts_the_spread_between_subjects():
    rng = np.random.default_rng(0)
    subject = np.repeat([f"p{i}" for i in range(200)], 10)
    error = np.repeat(rng.normal(1, 3, 200), 10) + rng.normal(0, 4, 2000)
    got = agreement(subject, np.zeros(2000), error)
    assert got["bias"] == pytest.approx(error.mean())
    assert got["sd"] == pytest.approx(5, rel=0.05)
    assert np.mean((got["low"] < error) & (error < got["high"])) == pytest.approx(0.95, abs=0.02)
    assert got["error_95"] == pytest.approx(np.quantile(np.abs(error), 0.95))


def test_repeats_are_pooled_but_a_window_counts_once(tmp_path):
    jobs = [job(tmp_path, name, kind, k, 1.5) for name, kind in (("net", "network"), ("plain", "baseline"))
            for k in range(6)]  # fmt: skip
    for one in jobs[6:]:
        write(said(SUBJECTS[2 * (one.fold % 3) :][:2], 8.0, [5, one.fold]), one.folder, one.fold, {})
    found = gather(jobs, CLASSES, (), repeats=2)
    net = found["methods"][0]
    assert {of["n"] for of in net["per_subject"].values()} == {N}
    assert np.sum(net["confusion"]) == 6 * N
    folds = next(c for c in found["comparisons"] if c["score"] == "accuracy")["folds"]
    assert set(folds) == {"t", "p"}
    assert gather(jobs[:3], CLASSES, ())["comparisons"] == []
    write_tables(tmp_path, jobs, CLASSES, 2)
    assert pd.read_parquet(tmp_path / "windows.parquet").repeat.value_counts().to_dict() == {0: 12 * N, 1: 12 * N}


def test_few_subjects_make_a_curve(jobs, tmp_path):
    less = [job(tmp_path, "net", "network", fold, 6.0, fraction=f) for f in (0.5, 0.1) for fold in range(3)]
    fold = Fold(train=tuple("abcdefghij"), validation=("k", "l"), test=("m",))
    found = gather([*jobs, *less], CLASSES, (), folds=[fold] * 3)
    rows = [(r["method"], r["fraction"], r["n_subjects"]) for r in found["few_shot"]]
    assert rows == [("net", 0.1, 1.0), ("net", 0.5, 5.0), ("net", 1.0, 10.0), ("plain", 1.0, 12.0), ("sure", 1.0, 12.0)]
    assert [m["name"] for m in found["methods"]] == ["net", "plain", "sure"]
    assert len(found["methods"][0]["runs"]) == 3, "those of all subjects alone"
    assert found["few_shot"][0]["scores"]["macro_f1"]["low"] is not None
    (less[0].folder / "finished").unlink()
    assert 0.5 not in {r["fraction"] for r in gather([*jobs, *less], CLASSES, (), folds=[fold] * 3)["few_shot"]}
    assert gather(jobs, CLASSES, ())["few_shot"] == []


def test_tables_hold_every_window_and_every_score(jobs, tmp_path):
    write_tables(tmp_path, jobs, CLASSES)
    windows, scores = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("windows", "results"))
    assert len(windows) == 3 * 6 * N
    for one in jobs:
        mine = windows[(windows.method == one.method) & (windows.fold == one.fold)]
        told = pq.read_table(file_of(one.folder, "predictions", one.fold))
        for name in ("y_true", "y_pred", "start_s", "recording"):
            assert mine[name].tolist() == told[name].to_pylist()
        assert mine.pred_class.tolist() == [CLASSES[k] for k in mine.y_pred]
        said = json.loads((one.folder / "metrics.json").read_text())
        value = scores[(scores.method == one.method) & (scores.fold == one.fold) & (scores.score == "macro_f1")].value
        assert value.item() == said["macro_f1"]
    assert windows[windows.method == "sure"].probability.isna().all()
    assert windows[windows.method == "net"].temperature.nunique() == 3
    assert windows[windows.method == "plain"].temperature.isna().all()
    np.testing.assert_allclose(np.stack(windows[windows.method == "net"].probability).sum(1), 1, rtol=1e-5)
    assert json.loads(pq.read_schema(tmp_path / "windows.parquet").metadata[b"classes"]) == list(CLASSES)
    first = (tmp_path / "windows.parquet").read_bytes()
    write_tables(tmp_path, jobs, CLASSES)
    assert (tmp_path / "windows.parquet").read_bytes() == first


def test_a_run_that_failed_is_missing_from_the_tables_and_the_others_are_there(jobs, tmp_path):
    lost = replace(jobs[1], config=FinetuneConfig(out=str(tmp_path / "lost")))
    write_tables(tmp_path, [jobs[0], lost, *jobs[2:]], CLASSES)
    windows = pd.read_parquet(tmp_path / "windows.parquet")
    assert len(windows) == (3 * 6 - 2) * N
    assert set(windows[windows.method == "net"].fold) == {0, 2}


def test_the_example_of_the_documentation_runs(jobs, tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "evaluation.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "windows.parquet" in block]
    (tmp_path / "folds").mkdir()
    write_tables(tmp_path / "folds", jobs, CLASSES)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines() if line.startswith("herd/")] == list(SUBJECTS)
    assert re.search(r"true_class *\n(rest|run|walk) ", said)


def test_results_do_not_depend_on_who_finished_first(tmp_path):
    there = {}
    for order in ([0, 1, 2], [2, 0, 1]):
        out = tmp_path / str(order[0])
        done = {fold: job(out, "net", "network", fold, 2.0) for fold in order}
        jobs = [done[fold] for fold in sorted(done)]
        write_tables(out, jobs, CLASSES)
        found = gather(jobs, CLASSES, ())
        there[order[0]] = (json.dumps(found), (out / "windows.parquet").read_bytes())
    assert there[0] == there[2]
