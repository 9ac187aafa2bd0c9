"""Prediction at the edges: clocks that are a little off, tables of several animals, times told twice, bad labels."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from stored import COLLARS

from aar_dist.base.config import ClassSpec, dump
from aar_dist.evaluation.predict import main
from aar_dist.evaluation.predict_inputs import open_recordings
from aar_dist.evaluation.predict_model import open_predictor
from aar_dist.evaluation.predict_signal import signal_of
from aar_dist.evaluation.predict_windows import slide
from aar_dist.recordings.contract import read_recording
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.store.checkpoint import build_objective
from aar_dist.store.registry import Store
from aar_dist.stream.config import DataConfig
from aar_dist.training.config import ENCODER
from aar_dist.training.finetuning.config import CLASSIFICATION, RESOLVED, FinetuneConfig

CHANNELS = ["acc.x", "acc.y", "acc.z"]
CLASSES = ["rest", "walk", "run"]


def publish(folder: Path, name: str, *, seconds: float, rate_hz: float, hop_s: float | None = None) -> None:
    """A model whose window is as long as there is room for, and that says something of the last patch."""
    room = round(seconds * rate_hz)
    config = FinetuneConfig(
        data=DataConfig(segment_duration=seconds, max_window_length=room),
        model=ClassSpec(ENCODER, {"d_embedding": 64, "n_layers": 1, "patch_size": 10, "max_window_length": room}),
        objective=ClassSpec(CLASSIFICATION, {"n_classes": 3, "pooling": "last"}),
    )
    torch.manual_seed(2)
    weights = build_objective(config.model, config.objective).state_dict()
    about = {
        "classes": CLASSES,
        "windows": {"segment_duration": seconds, "hop_s": hop_s, "min_share": 1.0, "classes": None, "datasets": None},
        "channels": CHANNELS,
        "columns": [CHANNELS],
        "rates_hz": [rate_hz],
        "split": {"train": ["wild/a"], "validation": []},
    }
    Store(folder).publish(name, weights, config=dump(RESOLVED, config), card="# m\n", metrics={}, about=about)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """``m@1`` takes 4 s at 20 Hz; ``half@1`` 5 s at 25 Hz, every 62.5 samples."""
    folder = tmp_path_factory.mktemp("store")
    publish(folder, "m", seconds=4.0, rate_hz=20.0)
    publish(folder, "half", seconds=5.0, rate_hz=25.0, hop_s=2.5)
    return folder


def record(folder: Path, seconds: float, *, subject: str = "a", rate_hz: float = 20.0, **more) -> Path:
    values = np.random.default_rng(0).normal(size=(round(seconds * rate_hz), 3)).astype("<f4")
    acc = SensorData(values=values, rate_hz=rate_hz, units="g", axes=("x", "y", "z"))
    return dataset_to_hdf5(folder, dataset="wild", species="cow", subject=subject, sensors={"acc": acc}, **more)[0]


def run(store: Path, recordings: Path, out: Path, *more: str, model: str = "store://m@1") -> list[dict]:
    main([model, str(recordings), str(out), "--store", str(store), "--device", "cpu", *more])
    return pq.read_table(out if out.suffix else out / "ethogram.parquet").to_pylist()


def test_a_clock_that_is_a_little_fast_is_read_as_in_training(store, tmp_path):
    """The same samples, said to be of 20 and of 20.19 Hz: the same windows, and no patch more."""
    predictor = open_predictor(Store(store).get("m"))
    assert [predictor.samples(rate) for rate in (20.0, 20.19, 19.81, 40.0)] == [80, 80, 80, 160]
    said = []
    for rate_hz in (20.0, 20.19):
        path = record(tmp_path / f"{rate_hz:g}_hz", 200 / rate_hz, rate_hz=rate_hz)
        signal = signal_of(read_recording(path), predictor, sensor=None, resample=False)
        said.append(slide(predictor, signal, 4.0))
    assert [s.start.tolist() for s in said] == [[0, 80, 120], [0, 81, 120]]
    np.testing.assert_allclose(said[0].output[[0, 2]], said[1].output[[0, 2]], atol=2e-6)


def test_resampling_makes_no_time(store, tmp_path):
    """1,001 samples at 50 Hz are 401 at 20 Hz, the last of which ends 0.03 s later."""
    record(tmp_path / "herd", 20.02, rate_hz=50.0)
    rows = run(store, tmp_path / "herd", tmp_path / "out", "--resample")
    assert (rows[0]["start_s"], rows[-1]["end_s"]) == (0, 20.02)


def test_a_label_that_is_no_class_is_one_line(store, tmp_path, capsys):
    path = record(tmp_path / "herd", 20.0, label=np.zeros(400, np.int16), classes=CLASSES)
    with h5py.File(path, "r+") as file:
        file["label"][7] = 3
    with pytest.raises(SystemExit) as stop:
        run(store, tmp_path / "herd", tmp_path / "out")
    assert stop.value.code == 2
    assert "label: holds 3 at sample 7, outside its 3 classes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("times", [True, False])
def test_an_animal_may_stand_in_several_places_of_a_table(tmp_path, times):
    """Rows of a, of b, of a again: the second ones of a go on counting from its first."""
    time_s = np.arange(600) / 20 + np.repeat([0, 0, 100], 200)
    rows = [f"{t},{'aba'[i // 200]},{i % 7},0,1" for i, t in enumerate(time_s)]
    (tmp_path / "one.csv").write_text("\n".join(["t,animal,ax,ay,az", *rows]))
    (tmp_path / "one.yaml").write_text(COLLARS + "timestamps: {column: t}\n" * times)
    with open_recordings(tmp_path / "one.csv", tmp_path / "one.yaml", {}) as found:
        offsets = {r.recording: found.clocks[r.path].offset_s for r in found.good}
    assert offsets == pytest.approx({"cow_a_ds_0": 0, "cow_a_ds_1": 120 if times else 10, "cow_b_ds_0": 0})


def test_a_table_s_times_count_and_not_its_nominal_rate(store, tmp_path):
    """20 Hz says the COLLARS, 19.6 Hz the timestamps: ten minutes are ten minutes; rounded times change nothing."""
    lines = {}
    for name, rate_hz, digits in (("slow", 19.6, 3), ("rounded", 20.0, 2)):
        time_s = np.arange(round(600 * rate_hz) + 1) / rate_hz
        lines[name] = [f"{t:.{digits}f},a,{i % 7},{i // 900 % 2},1" for i, t in enumerate(time_s)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["t,animal,ax,ay,az", *lines[name]]))
    yaml = tmp_path / "one.yaml"
    yaml.write_text(COLLARS + "timestamps: {column: t}\n")
    rows = run(store, tmp_path / "slow.csv", tmp_path / "slow", "--table", str(yaml))
    assert rows[-1]["end_s"] == pytest.approx(600, abs=0.1)
    budget = pq.read_table(tmp_path / "slow/budget.parquet")["seconds"].to_pylist()
    assert sum(budget) == pytest.approx(600, abs=0.1)
    rows = run(store, tmp_path / "rounded.csv", tmp_path / "rounded", "--table", str(yaml))
    assert rows[-1]["end_s"] == 600.05


def test_recordings_of_one_time_are_told(store, tmp_path, capsys):
    for k, start in enumerate(("2024-05-13T08:00:00", "2024-05-13T08:00:20", "2024-05-13T08:00:30")):
        record(tmp_path / "one", 20.0, start_time=start, first_index=k)
        record(tmp_path / "other", 9.9, start_time=start, first_index=k)
    run(store, tmp_path / "one", tmp_path / "out")
    assert "cover the same time, which the budget counts twice: wild/a" in capsys.readouterr().out
    run(store, tmp_path / "other", tmp_path / "other_out")
    out = capsys.readouterr().out
    assert "counts twice" not in out
    assert "UTC" not in out
    run(store, record(tmp_path / "utc", 9.9, start_time="2024-05-13T23:59:59+00:00"), tmp_path / "utc_out")
    assert "the days are those of UTC" in capsys.readouterr().out


def test_the_agreement_says_how_many_animals_trained_the_model(store, tmp_path, capsys):
    for subject in ("a", "b"):
        record(tmp_path / "herd", 20.0, subject=subject, label=np.zeros(400, np.int16), classes=CLASSES)
    run(store, tmp_path / "herd", tmp_path / "out")
    assert "of 2 subjects, 1 of which trained the model)" in capsys.readouterr().out
    run(store, tmp_path / "herd", tmp_path / "other", "--subject", "b")
    assert "one every 4 s, of 1 subjects)" in capsys.readouterr().out
    told = json.loads((tmp_path / "out/about.json").read_text())["agreement"]
    assert (told["subjects"], told["subjects_that_trained_it"]) == (2, 1)


def test_what_a_killed_run_left_beside_a_named_file_is_swept(store, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f"cows.csv.staging-{socket.gethostname()}-{gone.pid}-1"
    left.mkdir()
    (left / "ethogram.csv").touch()
    record(tmp_path / "herd", 20.0)
    main(["store://m@1", str(tmp_path / "herd"), str(tmp_path / "cows.csv"), "--store", str(store)])
    assert not left.exists()
    assert (tmp_path / "cows.csv").is_file()


@pytest.mark.parametrize("overlap", ["0.5", "0.9", "0.99"])
def test_finer_steps_meet_every_window_of_training(store, tmp_path, overlap):
    """Every other one of them begins between two samples, where rounding decides."""
    record(tmp_path / "herd", 120.0, rate_hz=25.0, label=np.zeros(3000, np.int16), classes=CLASSES)
    run(store, tmp_path / "herd", tmp_path / "out", "--overlap", overlap, model="store://half@1")
    told = json.loads((tmp_path / "out/about.json").read_text())["agreement"]
    assert (told["n"], told["hop_s"]) == (47, 2.5)
