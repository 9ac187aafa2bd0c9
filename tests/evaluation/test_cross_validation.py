"""All folds of all methods: killed and run again, failing, compared."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as sk
from finetune_toys import folds_settings
from launching import ROOT, environment, flags, rank_process

from aar_dist.evaluation.fold_jobs import carry_out
from aar_dist.evaluation.study import open_study
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.store.registry import Store

SCRIPT = str(ROOT / "launch" / "folds.py")


def start(said: dict) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, SCRIPT, *flags(said)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def folds(said: dict) -> tuple[int, str]:
    process = start(said)
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


@pytest.fixture(scope="module")
def undisturbed(shards, backbone, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "folds"
    code, text = folds(folds_settings(shards, backbone, out))
    assert code == 0, text
    (out / "said").write_text(text)
    return out


def results(out: Path) -> dict:
    """All but what differs from run to run: times, and where it stands."""
    made = json.loads((out / "results.json").read_text())
    for method in made["methods"]:
        for run in method["runs"]:
            assert (run.pop("seconds") or 0) >= 0, "None if it was killed between its end and the clock"
    return {key: value for key, value in made.items() if key not in ("made_at", "command")}


@pytest.mark.launch
def test_scores_are_those_of_all_test_windows_together(undisturbed):
    made = results(undisturbed)
    assert [m["name"] for m in made["methods"]] == ["pretrained", "scratch", "majority", "logistic"]
    for method in made["methods"]:
        files = sorted((undisturbed / "runs" / method["name"] / "seed_578").glob("fold_*/predictions*.parquet"))
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        truth, said = ([row[name] for row in rows] for name in ("y_true", "y_pred"))
        assert {row["subject"] for row in rows} == {f"toy/s{i}" for i in range(6)}
        scores = method["scores"]
        assert scores["accuracy"]["value"] == pytest.approx(sk.accuracy_score(truth, said))
        assert scores["macro_f1"]["value"] == pytest.approx(sk.f1_score(truth, said, average="macro"))
        assert np.array_equal(method["confusion"], sk.confusion_matrix(truth, said))
        tables = [pq.read_table(file) for file in files]
        folds = [sk.accuracy_score(table["y_true"], table["y_pred"]) for table in tables]
        assert scores["accuracy"]["folds_sd"] == pytest.approx(np.std(folds, ddof=1))
        assert scores["accuracy"]["seeds_sd"] is None
        for subject, of in method["per_subject"].items():
            mine = [(r["y_true"], r["y_pred"]) for r in rows if r["subject"] == subject]
            assert of["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(*zip(*mine, strict=True)))
    scores = {m["name"]: m["scores"]["balanced_accuracy"]["value"] for m in made["methods"]}
    assert scores["majority"] == pytest.approx(1 / 3)
    assert scores["pretrained"] > 0.9
    assert {(c["a"], c["b"]) for c in made["comparisons"]} == {
        ("pretrained", "scratch"), ("pretrained", "majority"), ("pretrained", "logistic"), ("scratch", "majority"),
        ("scratch", "logistic"),
    }  # fmt: skip
    best = next(c for c in made["comparisons"] if (c["b"], c["score"]) == ("majority", "accuracy"))
    assert best["low"] > 0, "better than saying one class"
    assert best["verdict"] == "too few subjects to tell"
    networks = [method for method in made["methods"] if method["kind"] == "network"]
    assert all(method["calibration"]["after"] and method["abstention"]["wanted"][0]["chosen"] for method in networks)


@pytest.mark.launch
def test_what_is_left_behind(undisturbed, backbone):
    assert {p.name for p in undisturbed.iterdir()} >= {
        "config.yaml", "folds.json", "runs", "final", "embeddings.parquet", "results.json", "results.md", "store",
        "report.html", "windows.parquet", "results.parquet",
    }  # fmt: skip
    store = Store(undisturbed / "store")
    assert store.names() == sorted(
        ["finetuned", *(f"finetuned.{s}.seed578.fold{k}" for s in ("pretrained", "scratch") for k in range(2))]
    )
    final = store.get("finetuned")
    assert len(final.manifest["split"]["train"]) == 6
    assert final.manifest["classes"] == ["rest", "run", "walk"]
    assert not list(undisturbed.glob("runs/**/checkpoints")), "what only a resume needs is gone"
    said = (undisturbed / "said").read_text()
    assert "8/8" in said
    assert "audit: 6 recordings, 0 pairs share samples or time, none of them across sides" in said
    text = (undisturbed / "results.md").read_text()
    assert "| pretrained − scratch |" in text
    assert "SIMULATED" not in said


def asked_to_stop(process: subprocess.Popen, out: Path) -> None:
    """SIGTERM while folds are trained: the last line says what becomes of it, without a trace of Ray's."""
    deadline = time.monotonic() + 120
    while not list(out.glob("runs/*/*/*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the folds do not get on"
        time.sleep(0.02)
    process.terminate()
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    said = "interrupted: nothing that was finished is lost, and the same command goes on"
    assert text.splitlines()[-1] == said
    assert "SIGTERM" not in text


@pytest.mark.launch
def test_killed_and_run_again_it_ends_with_the_same_and_trains_nothing_twice(undisturbed, shards, backbone, tmp_path):
    out = tmp_path / "folds"
    asked_to_stop(start(folds_settings(shards, backbone, out)), out)
    process = start(folds_settings(shards, backbone, out))
    deadline = time.monotonic() + 120
    while len(list(out.glob("runs/*/*/*/finished"))) < 2 or not list(out.glob("runs/*/*/*/checkpoints/step_*")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the folds do not get on"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = {
        file: file.stat().st_mtime_ns
        for marker in out.glob("runs/*/*/*/finished")
        for file in (marker, *marker.parent.glob("*.parquet"), marker.with_name("metrics.jsonl"))
    }
    assert not (out / "results.json").exists()
    code, text = folds(folds_settings(shards, backbone, out))
    assert code == 0, text
    kept = int(re.search(r"(\d+) of 8 runs are done already", text)[1])
    assert kept >= len({file.parent for file in done}) >= 2, "more if another was finished before its process was gone"
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert results(out) == results(undisturbed)
    assert (out / "windows.parquet").read_bytes() == (undisturbed / "windows.parquet").read_bytes()
    assert all(Store(out / "store").versions(name) == [1] for name in Store(out / "store").names())
    code, text = folds(folds_settings(shards, backbone, out))
    assert code == 0
    assert "8 of 8 runs are done already" in text


@pytest.mark.launch
def test_a_fold_whose_process_is_killed_goes_on_in_another(undisturbed, shards, backbone, tmp_path):
    out = tmp_path / "folds"
    more = {"strategies": '{"pretrained": {}}', "baselines": "none", "final": "false", "workers": 1}
    process = start(folds_settings(shards, backbone, out, **more))
    deadline = time.monotonic() + 120
    while not (saved := list(out.glob("runs/*/*/*/checkpoints/step_*/COMPLETE"))):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the folds do not get on"
        time.sleep(0.02)
    fold = saved[0].parents[2]
    killed = rank_process(fold, 0)
    os.kill(killed, signal.SIGKILL)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert rank_process(fold, 0) != killed
    assert "goes on from step" in (fold / "said.txt").read_text()
    made, before = (results(folder)["hashes"] for folder in (out, undisturbed))
    assert made == {name: value for name, value in before.items() if name in made}
    assert len(made) == 3


@pytest.mark.launch
def test_a_failing_fold_is_named_and_the_others_are_done(shards, backbone, tmp_path):
    bad = {"good": {}, "bad": {"optim.lr": 1e30, "train.max_skipped_steps": 2}}
    more = {"strategies": json.dumps(bad), "baselines": "none", "final": "false"}
    code, text = folds(folds_settings(shards, backbone, tmp_path / "f", **more))
    assert code == 2
    assert "error: 2 of 4 failed: bad, seed 578, fold 0 (" in text.splitlines()[-1]
    assert "had a loss or gradients that are not finite" in text
    made = results(tmp_path / "f")
    scores = {method["name"]: method["scores"] for method in made["methods"]}
    assert scores["bad"] is None
    assert scores["good"]["accuracy"]["value"] > 0.5
    assert [(f["method"], f["fold"]) for f in made["failed"]] == [("bad", 0), ("bad", 1)]
    assert "bad, seed 578, fold 1" in re.sub(r"\s+", " ", (tmp_path / "f" / "report.html").read_text())


@pytest.mark.launch
def test_targets_and_two_seeds(backbone, tmp_path):
    rng = np.random.default_rng(0)
    for subject in range(4):
        beats = np.repeat(rng.uniform(50, 150, 40), 40)
        wave = np.sin(np.cumsum(2 * np.pi * beats / 60 / 20))
        acc = SensorData(
            values=(wave[:, None] * [1, 0.5, -1] + 0.1 * rng.normal(size=(len(beats), 3))).astype("<f4"),
            rate_hz=20.0, units="g", axes=("x", "y", "z"),
        )  # fmt: skip
        target = {"species": "man", "sensors": {"acc": acc}, "label": beats}
        dataset_to_hdf5(tmp_path / "recordings" / "hr", dataset="hr", subject=f"p{subject}", **target)
    hr = build(
        tmp_path / "recordings", tmp_path / "set", BuildOptions(datasets=("hr",), longest_segment_s=2.0), workers=1
    )
    said = folds_settings(
        hr.folder, backbone, tmp_path / "f", n_folds=2, seeds="[1, 2]", baselines="auto", final="false"
    )
    said |= {"objective": "aar_dist.objectives.regression.Regression", "strategies": '{"net": {}}'}
    code, text = folds(said)
    assert code == 0, text
    made = results(tmp_path / "f")
    scores = {m["name"]: m["scores"] for m in made["methods"]}
    assert set(scores) == {"net", "mean", "ridge"}
    assert scores["net"]["mae"]["seeds_sd"] > 0
    assert scores["net"]["mae"]["value"] < scores["mean"]["mae"]["value"]
    assert scores["mean"]["r"]["value"] is None or scores["mean"]["r"]["value"] < 0.2
    assert made["classes"] is None
    assert "| net − ridge |" in (tmp_path / "f" / "results.md").read_text()


@pytest.mark.launch
def test_a_fold_of_two_ranks_is_started_by_the_launcher(shards, backbone, tmp_path):
    study = open_study(flags(folds_settings(shards, backbone, tmp_path / "f", ranks=2)))
    study.write()
    job = study.jobs()[0]
    assert carry_out(job).failed is None
    assert "test/accuracy" in (job.folder / "metrics.jsonl").read_text()
    assert (job.folder / "log" / "rank_1.log").is_file()
    broken = replace(job, config=replace(job.config, out=str(tmp_path / "g"), init_from="store://none@1"))
    assert "the launch ended with exit code" in carry_out(broken).failed
    assert "has no model 'none'" in (tmp_path / "g" / "said.txt").read_text()
