"""Prediction gives a model the same windows as the stream did in training: sensors, units, scale, normalisation."""

import json
import runpy
import sys
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
from stored import publish

from aar_dist.base.errors import CheckpointError, ConfigError, RecordingError
from aar_dist.evaluation.arrays import batches_once
from aar_dist.evaluation.predict import predict
from aar_dist.evaluation.predict_model import open_predictor
from aar_dist.evaluation.predict_options import PredictOptions
from aar_dist.evaluation.predict_resample import resampled
from aar_dist.evaluation.predict_signal import signal_of
from aar_dist.evaluation.predict_windows import slide
from aar_dist.recordings.contract import find_recordings, read_recording
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.stream.config import DataConfig, Normalize
from aar_dist.stream.windows import WindowConfig, window_stream


@pytest.mark.parametrize("normalize", get_args(Normalize))
@pytest.mark.parametrize(("sensors", "name"), [("each", "slow"), ("each", "fast"), (["gyr", "acc"], "fast")])
def test_windows_are_those_of_the_stream(recordings, shard_set, tmp_path, normalize, sensors, name):
    data = DataConfig(
        shards=[str(shard_set)], sensors=sensors, segment_duration=0.7, max_window_length=50, normalize=normalize
    )
    checkpoint, source, table = publish(tmp_path, data, WindowConfig(datasets=[name]))
    predictor = open_predictor(checkpoint)
    model = checkpoint.objective()
    with window_stream(source, table, data, shuffle=False) as stream:
        expected = np.concatenate([model.predict(batch).numpy() for batch in batches_once(stream, 256)])
    n = 0
    for recording in find_recordings(recordings / name):
        signal = signal_of(recording, predictor, sensor=None, resample=False)
        said = slide(predictor, signal, 0.7)
        of = (table.recording == recording.recording) & (table.dataset == name)
        place = np.searchsorted(said.start, np.rint(table.start_s[of] * signal.rate_hz))
        np.testing.assert_allclose(said.output[place], expected[of], atol=3e-6)
        n += of.sum()
    assert n == len(table) > 300


def test_columns_come_in_the_order_of_training_whatever_the_file_s(tmp_path, shard_set):
    data = DataConfig(shards=[str(shard_set)], segment_duration=0.7, max_window_length=50)
    predictor = open_predictor(publish(tmp_path, data, WindowConfig(datasets=["fast"]))[0])
    values = np.random.default_rng(0).normal(size=(100, 3)).astype("<f4")
    outputs = []
    for k, axes in enumerate((("x", "y", "z"), ("Z", "X", "Y"))):
        order = ["xyz".index(axis.lower()) for axis in axes]
        acc = SensorData(values=values[:, order] * 9.80665, rate_hz=50.0, units="m/s^2", axes=axes)
        (path,) = dataset_to_hdf5(
            tmp_path / "d", dataset="d", species="cow", subject="a", sensors={"acc": acc}, first_index=k
        )
        signal = signal_of(read_recording(path), predictor, sensor=None, resample=False)
        np.testing.assert_allclose(signal.read(0, 100), values, rtol=1e-5)
        outputs.append(slide(predictor, signal, 0.7).output)
    np.testing.assert_allclose(outputs[0], outputs[1], atol=3e-6)


def test_rounding_leaves_no_sample_between_two_windows(recordings, shard_set, tmp_path):
    data = DataConfig(shards=[str(shard_set)], segment_duration=0.65, max_window_length=50)  # 6.5 samples at 10 Hz
    checkpoint, *_ = publish(tmp_path, data, WindowConfig(datasets=["slow"]))
    results = predict(checkpoint, recordings / "slow", tmp_path / "out", PredictOptions(overlap=0.0))
    for e in results.ethograms:
        assert (e.start_s[0], e.stop_s[-1]) == (0, pytest.approx(e.duration_s))
        assert np.array_equal(e.start_s[1:], e.stop_s[:-1])


def test_patches_of_seconds_take_any_rate(recordings, shard_set, tmp_path, capsys):
    data = DataConfig(shards=[str(shard_set)], segment_duration=0.7, max_window_length=50)
    slow_only = WindowConfig(datasets=["slow"])
    by_samples, *_ = publish(tmp_path, data, slow_only)
    by_seconds, *_ = publish(tmp_path, data, slow_only, patch_seconds=0.1)
    with pytest.raises(RecordingError, match=r"acc at 50 Hz, but store://m@1 was trained at 10 Hz .* --resample"):
        predict(by_samples, recordings / "fast", tmp_path / "out", PredictOptions())
    results = predict(by_seconds, recordings / "fast", tmp_path / "out", PredictOptions())
    assert "recorded at 50 Hz, trained at 10 Hz: the model resamples each patch" in results.notes
    assert sum(map(len, results.ethograms)) > 10


def test_a_model_of_several_sensors_needs_them(recordings, shard_set, tmp_path):
    data = DataConfig(shards=[str(shard_set)], sensors=["acc", "gyr"], segment_duration=0.7, max_window_length=50)
    checkpoint, *_ = publish(tmp_path, data, WindowConfig(datasets=["fast"]))
    with pytest.raises(RecordingError, match="has no sensor gyr, which store://m@1 needs; it has acc"):
        predict(checkpoint, recordings / "slow", tmp_path / "out", PredictOptions(resample=True))
    with pytest.raises(ConfigError, match="--sensor acc: store://m@1 takes acc, gyr together"):
        predict(checkpoint, recordings / "fast", tmp_path / "out", PredictOptions(sensor="acc"))


def test_numbers_are_told_for_each_window(shard_set, tmp_path):
    data = DataConfig(shards=[str(shard_set)], segment_duration=0.5, max_window_length=50)
    checkpoint, *_ = publish(tmp_path, data, WindowConfig(datasets=["fast"]), regression=True)
    rng = np.random.default_rng(0)
    acc = SensorData(values=rng.normal(size=(1010, 3)).astype("<f4"), rate_hz=50.0, units="g", axes=("x", "y", "z"))
    target = np.repeat(np.arange(5, dtype="<f4"), 202)
    dataset_to_hdf5(tmp_path / "d", dataset="d", species="human", subject="a", sensors={"acc": acc}, label=target)
    results = predict(checkpoint, tmp_path / "d", tmp_path / "out", PredictOptions(hop_s=0.5))
    table = pq.read_table(tmp_path / "out/ethogram.parquet")
    assert table.column_names == ["dataset", "subject", "recording", "start_s", "end_s", "value"]
    assert table["start_s"].to_pylist() == pytest.approx([*np.arange(40) * 0.5, 19.7])
    assert table["end_s"].to_pylist() == pytest.approx([*np.arange(1, 41) * 0.5, 20.2])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["about.json", "ethogram.parquet"]
    told = json.loads((tmp_path / "out/about.json").read_text())["agreement"]
    values = np.array(table["value"][:40].to_pylist())
    edges = np.arange(41) * 0.5
    true = [np.mean(target[round(a * 50) : round(b * 50)]) for a, b in pairwise(edges)]
    assert told["n"] == 40
    assert told["mae"] == pytest.approx(np.abs(values - true).mean(), rel=1e-5)
    assert "agreement with the labels: mae" in results.summary(tmp_path)


def test_what_a_model_cannot_say_of_itself_is_refused(shard_set, tmp_path):
    data = DataConfig(shards=[str(shard_set)], segment_duration=0.7, max_window_length=50)
    old, *_ = publish(tmp_path, data, WindowConfig(datasets=["fast"]), forget=("rates_hz",))
    with pytest.raises(CheckpointError, match="does not tell rates_hz"):
        open_predictor(old)


@pytest.mark.parametrize(("rate_hz", "target_hz"), [(50.0, 20.0), (10.0, 25.0), (33.3, 25.0), (100.0, 25.0)])
def test_resampling_keeps_what_both_rates_can_carry(rate_hz, target_hz):
    seconds, hz = 60.0, 0.8
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    values = np.stack([np.sin(2 * np.pi * hz * t), np.full_like(t, 1.0)], axis=1).astype(np.float32)
    values[round(20 * rate_hz) : round(25 * rate_hz), 0] = np.nan
    rate, n, read = resampled(lambda a, b: values[a:b], len(values), rate_hz, target_hz)
    assert rate == pytest.approx(target_hz, rel=1e-3)
    whole = read(0, n)
    time = np.arange(n) / rate
    gap = (time >= 20) & (time < 25)
    assert np.isnan(whole[gap & (time > 20.2) & (time < 24.8), 0]).all()
    clear = ~gap & (np.abs(time - 22.5) > 4) & (time > 2) & (time < seconds - 2)
    np.testing.assert_allclose(whole[clear, 0], np.sin(2 * np.pi * hz * time[clear]), atol=0.02)
    np.testing.assert_allclose(whole[:, 1], 1, atol=0.01)
    parts = np.concatenate([read(a, min(a + 97, n)) for a in range(0, n, 97)])
    assert np.array_equal(np.isnan(parts), np.isnan(whole))
    away = np.abs(time - 22.5) > 4
    np.testing.assert_allclose(parts[away], whole[away], atol=1e-5)


def test_fast_movement_does_not_appear_as_slow_one():
    t = np.arange(6000) / 100
    values = np.sin(2 * np.pi * 20 * t)[:, None].astype(np.float32)
    _, n, read = resampled(lambda a, b: values[a:b], len(values), 100.0, 25.0)
    assert np.abs(read(20, n - 20)).max() < 0.02


def test_the_benchmark_tells_how_fast_it_is(monkeypatch, capsys):
    script = Path(__file__).parents[2] / "benchmarks/predict.py"
    flags = ["--hours", "0.05", "--d_embedding", "64", "--n_layers", "1", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", [str(script), *flags])
    runpy.run_path(str(script), run_name="__main__")
    told = json.loads(capsys.readouterr().out)
    assert told["n_windows"] == 35
    assert told["times_real_time"].keys() == told["seconds"].keys() == {"forward", "slide", "whole"}
    assert told["times_real_time"]["whole"] > 0
