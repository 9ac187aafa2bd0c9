"""A trained fold predicts recordings of animals it has not seen, as the fold did."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from finetune_toys import CLASSES, QUICK, RATE_HZ, make_shards, publish_backbone
from launching import ROOT, environment, flags
from matplotlib.image import imread
from stored import COLLARS

from aar_dist.evaluation import predict_windows
from aar_dist.evaluation.predict import main
from aar_dist.evaluation.predict_model import open_predictor
from aar_dist.evaluation.predict_signal import signal_of
from aar_dist.evaluation.predict_windows import slide
from aar_dist.recordings.contract import find_recordings, read_recording
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.store.registry import Store

HELD_OUT = ("s0", "s1")
YAML = COLLARS.replace("units: g", "units: mg") + "label: {column: behaviour, classes: [rest, walk, run]}\n"


@pytest.fixture(scope="module")
def fold(tmp_path_factory) -> Path:
    """A folder with a trained fold, its store and the recordings of those it was tested on."""
    root = tmp_path_factory.mktemp("fold")
    make_shards(root)
    publish_backbone(root / "store")
    settings = QUICK | {"data.shards": root / "set", "init_from": "store://toy@1", "store.path": root / "store"}
    settings |= {"split.test": "[toy/s0,toy/s1]", "store.name": "fold", "train.epochs": 2, "out": root / "run"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch/finetune.py"), *flags(settings)],
        env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (root / "held_out").mkdir()
    for subject in HELD_OUT:
        shutil.copy(root / f"recordings/toy/cow_{subject}_ds_0.hdf5", root / "held_out")
    return root


def run(fold: Path, recordings: Path, out: Path, *more: str, model: str = "store://fold@1") -> list[dict]:
    """The rows of the ethogram."""
    main([model, str(recordings), str(out), "--store", str(fold / "store"), "--device", "cpu", *more])
    return rows_of(out if out.suffix else out / "ethogram.parquet")


def rows_of(path: Path) -> list[dict]:
    return (pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)).to_pylist()


def movement(seconds: float, *, rate_hz: float = RATE_HZ, behaviour: int = 1) -> np.ndarray:
    """(n, 3) as in the toy herd."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(3).normal(size=(len(t), 3))
    return (np.sin(2 * np.pi * (0.0, 2.0, 5.0)[behaviour] * t)[:, None] + 0.2 * noise).astype("<f4")


def record(folder: Path, values: np.ndarray, *, rate_hz: float = RATE_HZ, sensor: str = "acc", **more) -> Path:
    told = {"subject": "new", "dataset": "wild", "species": "cow", **more}
    axes = ("x", "y", "z")
    units = "g" if sensor.startswith("acc") else "rad/s"
    sensors = {sensor: SensorData(values=values, rate_hz=rate_hz, units=units, axes=axes)}
    return dataset_to_hdf5(folder, sensors=sensors, **told)[0]


@pytest.mark.parametrize("step", [(), ("--hop_s", "1"), ("--overlap", "0.75")])
def test_agreement_is_the_folds_score(fold, tmp_path, capsys, step):
    run(fold, fold / "held_out", tmp_path / "out", *step)
    told = json.loads((fold / "run/metrics.json").read_text())
    about = json.loads((tmp_path / "out/about.json").read_text())
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "confusion", "n", "classes", "per_class"):
        assert about["agreement"][name] == told[name], name
    assert told["n"] > 100
    assert f"accuracy {told['accuracy']:.4f}, balanced accuracy" in capsys.readouterr().out


def test_a_step_beside_training_s_is_compared_on_its_own_windows(fold, tmp_path):
    run(fold, fold / "held_out", tmp_path / "out", "--hop_s", "0.3")
    agreement = json.loads((tmp_path / "out/about.json").read_text())["agreement"]
    assert agreement["hop_s"] == 0.3
    assert agreement["n"] > json.loads((fold / "run/metrics.json").read_text())["n"]


def test_every_window_is_told_as_the_fold_told_it(fold, tmp_path):
    rows = pq.read_table(fold / "run/predictions_fold_0.parquet").to_pylist()
    probability = np.load(fold / "run/y_prob_fold_0.npy")
    predictor = open_predictor(Store(fold / "store").get("fold"))
    recordings = {r.recording: r for r in find_recordings(fold / "held_out")}
    ethogram = run(fold, fold / "held_out", tmp_path / "out", "--overlap", "0")
    for name, recording in recordings.items():
        at = [i for i, row in enumerate(rows) if row["recording"] == name]
        said = slide(predictor, signal_of(recording, predictor, sensor=None, resample=False), 1.0)
        start = [rows[i]["start_s"] for i in at]
        place = np.searchsorted(said.start, np.rint(np.array(start) * RATE_HZ))
        assert np.array_equal(said.start[place] / RATE_HZ, start)
        np.testing.assert_allclose(said.output[place], probability[at], atol=2e-6)
        mine = [row for row in ethogram if row["recording"] == name]
        for i in at:
            middle = rows[i]["start_s"] + 0.5
            (row,) = [row for row in mine if row["start_s"] <= middle < row["end_s"]]
            assert row["behaviour"] == sorted(CLASSES)[rows[i]["y_pred"]]


def test_the_store_tells_what_prediction_needs(fold):
    manifest = Store(fold / "store").get("fold").manifest
    assert manifest["rates_hz"] == [RATE_HZ]
    assert manifest["columns"] == [["acc.x", "acc.y", "acc.z"]]


def test_what_is_written(fold, tmp_path, capsys):
    path = record(tmp_path / "new", movement(33.37), start_time="2024-05-13T23:59:50+02:00")
    rows = run(fold, path, tmp_path / "out")
    assert list(rows[0]) == ["dataset", "subject", "recording", "start_s", "end_s", "start_time", "end_time",
                             "behaviour", "confidence"]  # fmt: skip
    assert (rows[0]["start_s"], rows[-1]["end_s"]) == (0, 33.35), "667 samples: no time is lost"
    assert [a["end_s"] for a in rows[:-1]] == [b["start_s"] for b in rows[1:]]
    assert rows[0]["start_time"] == "2024-05-13T23:59:50.000+02:00"
    assert rows[-1]["end_time"] == "2024-05-14T00:00:23.350+02:00"
    assert (rows[0]["dataset"], rows[0]["subject"], rows[0]["recording"]) == ("wild", "new", path.stem)
    seconds = {name: sum(r["end_s"] - r["start_s"] for r in rows if r["behaviour"] == name) for name in CLASSES}
    assert seconds["walk"] > 30
    budget = rows_of(tmp_path / "out/budget.parquet")
    assert [(r["day"], r["behaviour"]) for r in budget[::3]] == [("2024-05-13", "rest"), ("2024-05-14", "rest")]
    for name in CLASSES:
        assert sum(r["seconds"] for r in budget if r["behaviour"] == name) == pytest.approx(seconds[name])
    assert imread(tmp_path / "out/timeline.png")[..., :3].std() > 0.05
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert (about["model"], about["window_s"], about["hop_s"]) == ("store://fold@1", 1.0, 0.5)
    assert about["agreement"] is None
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "about.json", "budget.parquet", "ethogram.parquet", "timeline.png"]  # fmt: skip
    assert "1 recordings of 1 subjects" in capsys.readouterr().out


def test_a_named_file_has_the_others_beside_it(fold, tmp_path):
    rows = run(fold, fold / "held_out", tmp_path / "out/cows.csv", "--min_duration_s", "3")
    assert all(row["end_s"] - row["start_s"] >= 3 for row in rows)
    names = ["cows.csv", "cows_about.json", "cows_budget.csv", "cows_timeline.png"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    assert {r["day"] for r in rows_of(tmp_path / "out/cows_budget.csv")} == {"day 1"}


def test_blocks_and_batches_change_nothing(fold, tmp_path, monkeypatch):
    values = movement(60.0)
    values[300:321], values[500:700] = np.nan, np.nan
    path = record(tmp_path, values)
    predictor = open_predictor(Store(fold / "store").get("fold"))
    signal = signal_of(read_recording(path), predictor, sensor=None, resample=False)
    whole = slide(predictor, signal, 0.35)
    monkeypatch.setattr(predict_windows, "BLOCK", 50)
    done: list[float] = []
    parts = slide(predictor, signal, 0.35, batch_size=7, advance=done.append)
    for name in ("start", "stop", "any_sample", "recorded"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name
    np.testing.assert_allclose(parts.output, whole.output, atol=2e-6)
    assert len(done) > 20
    assert sum(done) == pytest.approx(60)


def test_a_gap_is_no_behaviour(fold, tmp_path):
    values = movement(60.0)
    values[400:500] = np.nan  # 20 to 25 s
    values[600:610] = np.nan  # half a second is bridged
    rows = run(fold, record(tmp_path / "new", values), tmp_path / "out")
    ends = [row["end_s"] for row in rows if row["end_s"] not in {r["start_s"] for r in rows}]
    assert ends == [20.0, 60.0]
    assert [row["start_s"] for row in rows if row["start_s"] not in {r["end_s"] for r in rows}] == [0.0, 25.0]


def test_nothing_but_a_gap_has_no_row_and_is_named(fold, tmp_path, capsys):
    values = np.full((200, 3), np.nan, "<f4")
    with h5py.File(record(tmp_path / "new", movement(10.0)), "r+") as file:
        file["acc"][:] = values
    assert run(fold, tmp_path / "new", tmp_path / "out") == []
    assert rows_of(tmp_path / "out/budget.parquet") == []
    assert "1 recordings hold no sample of what the model takes: cow_new_ds_0" in capsys.readouterr().out


def test_a_recording_shorter_than_a_window_is_predicted_and_named(fold, tmp_path, capsys):
    record(tmp_path / "new", movement(0.6))
    (row,) = run(fold, tmp_path / "new", tmp_path / "out")
    assert (row["start_s"], row["end_s"]) == (0, 0.6)
    assert "1 recordings are shorter than a window of 1 s" in capsys.readouterr().out


def test_another_rate_is_refused_by_name_or_resampled(fold, tmp_path, capsys):
    path = record(tmp_path / "new", movement(40.0, rate_hz=50.0, behaviour=2), rate_hz=50.0)
    with pytest.raises(SystemExit) as stop:
        run(fold, path, tmp_path / "out")
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert f"{path}: acc at 50 Hz, but store://fold@1 was trained at 20 Hz" in error
    assert "--resample brings the recording to 20 Hz" in error
    rows = run(fold, path, tmp_path / "out", "--resample")
    assert rows[-1]["end_s"] == 40.0
    assert sum(r["end_s"] - r["start_s"] for r in rows if r["behaviour"] == "run") > 36
    assert "resampled from 50 to 20 Hz" in capsys.readouterr().out
    record(tmp_path / "near", movement(10.0, rate_hz=20.05), rate_hz=20.05)
    assert run(fold, tmp_path / "near", tmp_path / "near_out"), "a clock that is a quarter of a percent off"


def as_table(path: Path, hdf5: Path, *, labels: bool) -> Path:
    """A recording as a CSV in mg."""
    with h5py.File(hdf5) as file:
        values, label = file["acc"][:] * 1000, file["label"][:]
    lines = ["animal,ax,ay,az" + ",behaviour" * labels]
    for row, k in zip(values, label, strict=True):
        lines.append(",".join(["s0", *(f"{v:.6f}" for v in row), *([CLASSES[k]] if labels else [])]))
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines))
    path.with_suffix(".yaml").write_text(YAML)
    return path


@pytest.mark.parametrize("labels", [True, False])
def test_a_table_is_predicted_like_the_recording_it_holds(fold, tmp_path, labels):
    hdf5 = fold / "held_out/cow_s0_ds_0.hdf5"
    table = as_table(tmp_path / "tables/collar.csv", hdf5, labels=labels)
    yaml = str(table.with_suffix(".yaml"))
    expected = run(fold, hdf5, tmp_path / "hdf5")
    for number, source in enumerate((table, table.parent)):
        rows = run(fold, source, tmp_path / f"table_{number}", "--table", yaml)
        assert {row["source"] for row in rows} == {"collar.csv"}
        for row, other in zip(rows, expected, strict=True):
            assert row["confidence"] == pytest.approx(other["confidence"], abs=1e-4)
            assert all(row[name] == other[name] for name in ("subject", "start_s", "end_s", "behaviour"))
    told = [json.loads((tmp_path / out / "about.json").read_text())["agreement"] for out in ("table_0", "hdf5")]
    assert told[0] == (told[1] if labels else None)


def test_subjects_that_trained_the_model_are_told(fold, tmp_path, capsys):
    run(fold, fold / "recordings/toy/cow_s4_ds_0.hdf5", tmp_path / "out")
    assert "these subjects trained the model" in capsys.readouterr().out
    run(fold, fold / "held_out", tmp_path / "other")
    assert "these subjects trained the model" not in capsys.readouterr().out


def test_a_table_with_gaps_is_placed_by_its_timestamps(fold, tmp_path):
    time_s = np.arange(0, 40, 1 / RATE_HZ)
    time_s[400:] += 100
    lines = ["t,animal,ax,ay,az"]
    lines += [",".join(map(str, (t, "a", *row))) for t, row in zip(time_s, movement(40.0) * 1000, strict=True)]
    (tmp_path / "one.csv").write_text("\n".join(lines))
    (tmp_path / "one.yaml").write_text(YAML + "timestamps: {column: t}\n")
    rows = run(fold, tmp_path / "one.csv", tmp_path / "out", "--table", str(tmp_path / "one.yaml"))
    assert (rows[0]["start_s"], rows[-1]["end_s"]) == (0, 140)
    assert {row["recording"] for row in rows} == {"cow_a_ds_0", "cow_a_ds_1"}
    assert min(row["start_s"] for row in rows if row["recording"] == "cow_a_ds_1") == 120


def test_subjects_and_what_labels_are_not_known(fold, tmp_path, capsys):
    rows = run(fold, fold / "recordings", tmp_path / "out", "--subject", "s1", "--subject", "toy/s0")
    assert {row["subject"] for row in rows} == {"s0", "s1"}
    agreement = json.loads((tmp_path / "out/about.json").read_text())["agreement"]
    assert agreement["accuracy"] == json.loads((fold / "run/metrics.json").read_text())["accuracy"]
    acc = SensorData(values=movement(30.0), rate_hz=RATE_HZ, units="g", axes=("x", "y", "z"))
    label = np.repeat(np.array([0, 1, -1], np.int16), 200)
    dataset_to_hdf5(tmp_path / "new", sensors={"acc": acc}, label=label, classes=("walk", "swim"),
                    dataset="wild", species="cow", subject="a")  # fmt: skip
    capsys.readouterr()
    run(fold, tmp_path / "new", tmp_path / "other")
    out = capsys.readouterr().out
    assert "labels that the model does not know were left out: swim" in out
    assert "(10 windows of 1 s" in out


@pytest.fixture
def broken(fold, tmp_path) -> Path:
    """Recordings and tables that cannot be used, each in its folder."""
    path = shutil.copy(fold / "held_out/cow_s0_ds_0.hdf5", tmp_path)
    for name, part in (("cut", 0.5), ("torn", 0.02)):
        (tmp_path / name).mkdir()
        data = Path(path).read_bytes()
        (tmp_path / name / "cow_s0_ds_0.hdf5").write_bytes(data[: int(len(data) * part)])
    (tmp_path / "empty").mkdir()
    shutil.copytree(fold / "set", tmp_path / "shards")
    record(tmp_path / "gyr", movement(5.0), sensor="gyr_a")
    record(tmp_path / "two", movement(5.0), sensor="acc_a")
    acc = SensorData(values=movement(5.0), rate_hz=RATE_HZ, units="g", axes=("x", "y", "z"))
    two = {"acc_left": acc, "acc_right": acc}
    dataset_to_hdf5(tmp_path / "two", sensors=two, dataset="wild", species="cow", subject="b")
    dataset_to_hdf5(
        tmp_path / "axes", dataset="wild", species="cow", subject="b",
        sensors={"acc": SensorData(values=movement(5.0), rate_hz=RATE_HZ, units="g", axes=("a", "b", "c"))},
    )  # fmt: skip
    table = as_table(tmp_path / "tables/collar.csv", Path(path), labels=True)
    (tmp_path / "tables/lacks.yaml").write_text(YAML.replace("rate_hz: 20\n", ""))
    (tmp_path / "tables/other.yaml").write_text(YAML.replace("ax, ay", "ax, oy"))
    shutil.copytree(fold / "store", tmp_path / "store")
    weights = tmp_path / "store/models/fold/1/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    assert table.exists()
    return tmp_path


@pytest.mark.parametrize(
    ("recordings", "more", "said"),
    [
        ("cut", [], "not readable as HDF5"),
        ("torn", [], "not readable as HDF5"),
        ("empty", [], "holds no recording; looked for *.hdf5 and *.h5 in it and in its folders"),
        ("nowhere", [], "no such file or folder"),
        ("shards", [], "is a shard set; give the folder of recordings that it was built from"),
        ("tables", [], "for its .csv files give --table YAML"),
        ("tables/collar.csv", [], "a table needs the YAML that describes it: --table YAML"),
        ("tables/collar.csv", ["--table", "tables/lacks.yaml"], "rate_hz: is missing"),
        ("tables/collar.csv", ["--table", "tables/other.yaml"], "has no column 'oy'; it has animal, ax, ay, az"),
        ("tables", ["--table", "tables/nowhere.yaml"], "no such file; give the YAML"),
        ("gyr", [], "has no sensor of the kind acc that store://fold@1 was trained on; it has gyr_a"),
        ("two", [], "the model takes one of its sensors acc_left, acc_right; choose with --sensor"),
        ("two", ["--sensor", "acc_top"], "has no sensor 'acc_top'; it has acc_left, acc_right"),
        ("axes", [], "has the channels acc.a, acc.b, acc.c, store://fold@1 was trained on acc.x, acc.y, acc.z"),
        ("two", ["--subject", "c"], "--subject c: no recording of this subject; there are b, new"),
        ("two", ["--device", "cuda:99"], "--device cuda:99: "),
        ("two", ["--overlap", "1"], "--overlap must lie between 0 and 0.99"),
        ("two", ["--hop_s", "2"], "--hop_s must be positive and at most the window's 1 s"),
        ("two", ["--min_duration_s", "-1"], "--min_duration_s must be 0 or more"),
        ("two", ["--overlp", "0.5"], "did you mean --overlap?"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(fold, broken, monkeypatch, capsys, recordings, more, said):
    monkeypatch.chdir(broken)
    before = sorted(broken.rglob("*"))
    for out in ("out", "out.csv"):
        with pytest.raises(SystemExit) as stop:
            run(fold, Path(recordings), Path(out), *more)
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert said in error
        assert len(error.splitlines()) == 1
    assert sorted(broken.rglob("*")) == before


@pytest.mark.parametrize(
    ("model", "store", "said"),
    [
        ("store://fold@1", "store", "is damaged"),
        ("store://fold@7", "store", "has no version 7 of 'fold'; it has 1"),
        ("store://toy@1", "store", "MaskedReconstruction predicts nothing; fine-tune it on labelled recordings first"),
        ("store://fold@1", None, "in which store?"),
    ],
)
def test_a_model_that_cannot_predict_is_one_line(broken, capsys, model, store, said):
    where = ["--store", str(broken / store)] if store else []
    with pytest.raises(SystemExit) as stop:
        main([model, str(broken / "two"), str(broken / "out"), *where])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (broken / "out").exists()


@pytest.mark.parametrize(("out", "said"), [("full", "already holds something"), ("x.csv", "x_budget.csv: exists"),
                                           ("a.txt", "is a .parquet or a .csv file")])  # fmt: skip
def test_what_stands_there_is_left_alone(fold, tmp_path, capsys, out, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    (tmp_path / "x_budget.csv").write_text("mine")
    with pytest.raises(SystemExit):
        run(fold, fold / "held_out", tmp_path / out)
    assert said in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["full", "mine", "x_budget.csv"]


def test_bad_recordings_are_left_out_on_request(fold, broken, capsys):
    shutil.copy(fold / "held_out/cow_s1_ds_0.hdf5", broken / "cut")
    rows = run(fold, broken / "cut", broken / "out", "--skip_bad")
    assert {row["subject"] for row in rows} == {"s1"}
    assert "left out: " in capsys.readouterr().out
    rows = run(fold, broken / "two", broken / "two_out", "--skip_bad", "--sensor", "acc_left")
    assert {row["subject"] for row in rows} == {"b"}
