"""Whole fine-tuning runs: what they learn and leave behind, killed and resumed, refused in one line."""

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from finetune_toys import QUICK, make_shards, publish_backbone
from launching import DEEPSPEED, ROOT, environment, finish, flags, free_port, losses, signal_at_step, validations
from servers import object_store

from aar_dist.base.local import Local
from aar_dist.base.storage import hash_tree, sha256
from aar_dist.store.checkpoint import WEIGHTS
from aar_dist.store.pins import pins
from aar_dist.store.registry import Store, resolve
from aar_dist.stream.config import DataConfig
from aar_dist.stream.windows import WindowConfig, open_windows, window_stream
from aar_dist.training.checkpoints import best, read
from aar_dist.training.finetuning.finetune import main
from aar_dist.training.finetuning.pretrained import load_config, taught

pytestmark = pytest.mark.launch

SCRIPT = str(ROOT / "launch" / "finetune.py")
SUBJECTS = [f"toy/s{i}" for i in range(6)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Holds store://toy@1."""
    root = tmp_path_factory.mktemp("store")
    publish_backbone(root)
    return root


@pytest.fixture
def settings(shards, store) -> dict:
    return QUICK | {"data.shards": shards, "init_from": "store://toy@latest", "store.path": store}


@pytest.fixture(scope="module")
def two_folds(shards, store, tmp_path_factory) -> Path:
    """Both folds of a folds.json, in one process without a launcher."""
    out = tmp_path_factory.mktemp("two")
    folds = [{"train": SUBJECTS[2:], "validation": [], "test": SUBJECTS[:2]}]
    folds += [{"train": SUBJECTS[:3], "validation": SUBJECTS[3:4], "test": SUBJECTS[4:]}]
    (out / "folds.json").write_text(json.dumps({"folds": folds, "classes": ["rest", "run", "walk"]}))
    settings = settings_of_folds(shards, store, out)
    script = Path(__file__).with_name("finetune_twice.py")
    done = subprocess.run(
        [sys.executable, str(script), *flags(settings), str(out)],
        env=environment() | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (out / "said.txt").write_text(done.stdout)
    return out


def settings_of_folds(shards: Path, store: Path, out: Path) -> dict:
    settings = QUICK | {"data.shards": shards, "init_from": "store://toy@1", "store.path": store}
    more = {"split.folds": out / "folds.json", "store.name": "two", "train.patience": 2, "train.epochs": 6}
    return settings | more


@pytest.fixture
def unfinished(two_folds, shards, store, tmp_path) -> tuple[Path, dict]:
    """A copy of the first fold's run that was killed before it set its marker, and its settings."""
    out = Path(shutil.copytree(two_folds / "0", tmp_path / "run"))
    (out / "finished").unlink()
    return out, settings_of_folds(shards, store, two_folds)


def launch(out: Path, settings: dict) -> subprocess.Popen:
    """On two ranks."""
    command = [DEEPSPEED, "--num_accelerators", "2", "--master_port", str(free_port()), SCRIPT, "--out", str(out)]
    return subprocess.Popen(
        [*command, *flags(settings)],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def alone(out: Path, settings: dict) -> subprocess.CompletedProcess:
    """In one process, without a launcher."""
    command = [sys.executable, SCRIPT, "--out", str(out), *flags(settings)]
    return subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("fold", [0, 1])
def test_a_fold_learns_what_is_there(two_folds, fold):
    scores = json.loads((two_folds / str(fold) / "metrics.json").read_text())
    assert scores["balanced_accuracy"] > 0.95
    assert scores["macro_f1"] > 0.95
    assert np.sum(scores["confusion"]) == scores["n"] > 100
    assert set(scores["per_class"]) == {"rest", "run", "walk"}
    assert not {*scores["split"]["test"]} & {*scores["split"]["train"], *scores["split"]["validation"]}


@pytest.mark.parametrize("fold", [0, 1])
def test_predictions_can_be_traced_back(two_folds, shards, fold):
    out = two_folds / str(fold)
    y_true, y_pred, y_prob = (np.load(out / f"y_{name}_fold_{fold}.npy") for name in ("true", "pred", "prob"))
    rows = pq.read_table(out / f"predictions_fold_{fold}.parquet").to_pydict()
    scores = json.loads((out / "metrics.json").read_text())
    names = ["dataset", "subject", "recording", "start_s", "stop_s", "y_true", "y_pred", "probability"]
    assert list(rows) == names
    assert set(rows["subject"]) == set(scores["split"]["test"])
    assert np.array_equal(np.array(rows["probability"], np.float32), y_prob)
    chose = pq.read_table(out / f"validation_fold_{fold}.parquet").to_pydict()
    assert list(chose) == names
    assert set(chose["subject"]) == set(scores["split"]["validation"])
    assert np.array_equal(rows["y_true"], y_true)
    assert np.array_equal(rows["y_pred"], y_pred)
    assert np.array_equal(y_prob.argmax(1), y_pred)
    assert np.allclose(y_prob.sum(1), 1, atol=1e-5)
    assert scores["accuracy"] == pytest.approx((y_true == y_pred).mean())
    _, table = open_windows(DataConfig(shards=[str(shards)], segment_duration=1.0), WindowConfig())
    label = {(r, s): table.classes[k] for r, s, k in zip(table.recording, table.start_s, table.label, strict=True)}
    assert [label[r, s] for r, s in zip(rows["recording"], rows["start_s"], strict=True)] == [
        scores["classes"][k] for k in y_true
    ]


def test_the_stored_model_says_what_the_fold_said(two_folds, shards, store):
    said = json.loads((two_folds / "0" / "finished").read_text())
    stored = resolve(said["model"], store)
    assert stored.manifest["classes"] == ["rest", "run", "walk"]
    assert stored.manifest["windows"]["segment_duration"] == 1.0
    assert stored.manifest["init_from"] == "store://toy@1"
    card = (stored.path / "card.md").read_text()
    for words in (
        "| toy | cow | 6 | 0.20 | acc 20 |",
        "Test: accuracy ",
        "| walk | ",
        "aar-dist predict store://two@latest",
    ):
        assert words in card
    assert [pin.folder for pin in pins(Local(store), "toy", 1)] == [str(two_folds)], "one pin for all runs of the folds"
    assert stored.taught == {*SUBJECTS[2:]}
    second = load_config(["--init_from", said["model"], "--store.path", str(store), "--split.test", "toy/s0"])
    assert taught(second, stored, SUBJECTS[:3]) == ("toy/s2",)
    assert taught(replace(second, from_scratch=True), stored, SUBJECTS[:3]) == ()
    model = stored.objective()
    data = DataConfig(shards=[str(shards)], segment_duration=1.0, max_window_length=20)
    source, table = open_windows(data, WindowConfig(classes=stored.manifest["classes"]))
    table = table.select(np.isin(table.subject, SUBJECTS[:2]))
    with window_stream(source, table, data, shuffle=False) as stream:
        again = torch.cat([model.predict(batch)[weight > 0] for batch, weight in stream.evaluation(16, 16)])
    assert np.allclose(again.numpy(), np.load(two_folds / "0" / "y_prob_fold_0.npy"), atol=1e-6)


def test_the_best_checkpoint_is_the_one_with_the_lowest_validation_loss(two_folds):
    for out in (two_folds / "0", two_folds / "1"):
        rows = [row for row in validations(out) if row["step"]]
        chosen = min(rows, key=lambda row: row["val/loss"])
        told = json.loads((out / "metrics.json").read_text())
        assert told["best_step"] == chosen["step"] == read(best(out / "checkpoints")).step
        assert told["val_loss"] == chosen["val/loss"]


def test_one_line_for_each_run_says_who_trains_selects_and_tests(two_folds):
    lines = [line for line in (two_folds / "said.txt").read_text().splitlines() if " starts: " in line]
    assert len(lines) == 2
    assert "3 classes from store://toy@1, all layers" in lines[1]
    assert "of 3 subjects train" in lines[1]
    assert "of 1 subjects select" in lines[1]
    assert "of 2 subjects test" in lines[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optim.lr": 0.5}, "written with optim.lr 0.001, now it is 0.5"),
        ({"split.fold": 1}, "written with split."),
        ({"deepspeed.zero_options": '{"nonsense": 1}'}, "deepspeed.zero_options: nonsense"),
        ({"store.name": "blocked"}, "blocked: "),
    ],
)
def test_a_refused_launch_leaves_the_run_as_it_was(unfinished, change, said):
    out, settings = unfinished
    (out / ".lock").write_text("")
    before = hash_tree(out)
    (Path(settings["store.path"]) / "models" / "blocked").write_text("no folder")
    done = alone(out, settings | change)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (out / ".lock").write_text("")  # it names the process that held it last
    assert hash_tree(out) == before


def test_a_run_killed_at_its_very_end_publishes_once(unfinished):
    out, settings = unfinished
    store = Store(Path(settings["store.path"]))
    versions = store.versions("two")
    done = alone(out, settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert store.versions("two") == versions
    assert json.loads((out / "finished").read_text())["model"] == "store://two@1"


@pytest.mark.slow
def test_early_stop_and_a_frozen_run_killed_and_resumed_equal_an_uninterrupted_one(settings, tmp_path):
    settings |= {"deepspeed.zero_stage": 2, "freeze.unlocked_layers": 1, "split.test": "toy/s0", "train.epochs": 40}
    settings |= {"optim.lr": 0.03, "train.patience": 1, "train.batch_size": 32}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, said = finish(launch(whole, settings | {"store.name": "whole"}))
    assert code == 0, said
    steps = len(losses(whole))
    planned = int(re.search(r"(\d+) steps of 32 segments", said)[1])
    late = [row["val/loss"] for row in validations(whole) if row["step"]]
    assert steps < planned
    assert f"finished {steps} steps, stopped early (patience 1)" in said
    assert late[:-1] == sorted(late[:-1], reverse=True)
    assert late[-1] >= late[-2], "an epoch without a better loss ends it"
    process = launch(broken, settings | {"store.name": "broken"})
    signal_at_step(process, broken, steps // 2 + 3, rank=1, number=signal.SIGKILL)
    code, said = finish(process)
    assert code != 0
    assert not (broken / "finished").exists()
    code, said = finish(launch(broken, settings | {"store.name": "broken"}))
    assert code == 0, said
    assert "goes on from step" in said
    assert losses(broken) == losses(whole)
    assert validations(broken) == validations(whole)
    weights = [sha256(Path(settings["store.path"]) / "models" / name / "1" / WEIGHTS) for name in ("whole", "broken")]
    assert weights[0] == weights[1]
    assert np.array_equal(np.load(whole / "y_prob_fold_0.npy"), np.load(broken / "y_prob_fold_0.npy"))
    frozen = resolve("store://toy@1", settings["store.path"]).weights()
    trained = resolve("store://broken@1", settings["store.path"]).weights()
    moved = {name for name in frozen if name.startswith("backbone.") and not torch.equal(frozen[name], trained[name])}
    assert moved
    assert all(name.startswith("backbone.layers.1.") for name in moved)

    (broken / "finished").unlink()
    done = alone(broken, settings | {"freeze.unlocked_layers": 2})
    assert done.returncode == 2
    assert "written with freeze.unlocked_layers 1, now it is 2" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_final_model_on_all_subjects_from_scratch(settings, tmp_path):
    settings |= {
        "split.fold": "all",
        "train.epochs": 2,
        "train.patience": 1,
        "from_scratch": "true",
        "store.name": "final",
    }
    done = alone(tmp_path / "run", settings)
    assert done.returncode == 0, done.stdout + done.stderr
    stored = resolve("store://final@latest", settings["store.path"])
    assert stored.manifest["split"] == {"train": SUBJECTS, "validation": [], "test": []}
    assert stored.manifest["init_from"] is None
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert "every subject trained" in done.stdout
    assert "stopped early" not in done.stdout, "without validation there is nothing to be impatient about"


def test_a_run_starts_from_a_bucket_and_publishes_there(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("AAR_DIST_CACHE", str(tmp_path / "cache"))
    with object_store("bucket"):
        where = "s3://bucket/team"
        publish_backbone(where)
        settings = QUICK | {"data.shards": shards, "init_from": "store://toy@latest", "store.path": where}
        done = alone(tmp_path / "run", settings | {"store.name": "tuned", "split.test": "toy/s0", "train.epochs": 1})
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"store://tuned@1 in {where}" in done.stdout
        made = resolve("store://tuned@latest", where)
        assert made.manifest["init_from"] == "store://toy@1"
        assert [pin.folder for pin in pins(Store(where).shelf.place, "toy", 1)] == [str(tmp_path / "run")]
        assert made.objective().backbone


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"store.path": "http://me:pw@127.0.0.1:9/store"}, "got http://127.0.0.1:9/store"),
        ({"init_from": "store://toy@9"}, "has no version 9 of 'toy'"),
        ({"model.n_layers": 3}, "model.n_layers is 3, but store://toy@1 has 2"),
        ({"n_classes": 8}, "n_classes is 8, but the labels have 3 classes"),
        ({"split.fold": 3}, "nobody to test on"),
        ({"windows.classes": "[graze]"}, "no label 'graze'"),
        ({"data.segment_duration": 2.0}, "has 40 samples, but the model takes 20"),
        ({"split.test": "toy/s0", "freeze.unlocked_layers": 4}, "the backbone has 3 blocks"),
        ({"split.test": "toy/s0", "objective": "MaskedReconstruction"}, "the labels are classes, but objective is"),
        ({"split.test": "toy/s0", "objective.pooling": "cls"}, "has no token for the whole segment"),
        ({"data.shards": "nowhere"}, "nowhere"),
        ({"out": ""}, "out is missing"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(settings, tmp_path, monkeypatch, capsys, change, said):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(flags(settings | {"out": tmp_path / "run"} | change))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()
