"""``normalize: dataset``: the statistics of training go with the model, into fine-tuning and into prediction."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from finetune_toys import make_shards
from launching import flags
from stored import publish

from aar_dist.base.config import ClassSpec, dump
from aar_dist.base.errors import CheckpointError, ConfigError, RecordingError
from aar_dist.evaluation.embed import stream_of
from aar_dist.evaluation.predict import predict
from aar_dist.evaluation.predict_model import open_predictor
from aar_dist.evaluation.predict_options import PredictOptions
from aar_dist.evaluation.predict_signal import signal_of
from aar_dist.recordings.contract import find_recordings, read_recording
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.store.checkpoint import build_objective
from aar_dist.store.registry import Store, resolve
from aar_dist.stream.config import DataConfig, Statistics
from aar_dist.stream.source import open_source
from aar_dist.stream.windows import WindowConfig, open_windows, window_stream
from aar_dist.training.config import ENCODER, MASKED, SCHEMA, PretrainConfig
from aar_dist.training.finetuning.config import RESOLVED
from aar_dist.training.finetuning.pretrained import load_config
from aar_dist.training.finetuning.task import open_task, resolved
from aar_dist.training.pretrain import initial_objective, open_streams, plan, start_of
from aar_dist.training.ranks import Ranks
from aar_dist.training.run_directory import RunDirectory


@pytest.fixture
def data(shard_set) -> DataConfig:
    return DataConfig(shards=[str(shard_set)], segment_duration=0.7, max_window_length=50, normalize="dataset")


def herd(root: Path, name: str, *, sensor="acc", axes=("x", "y", "z")) -> Path:
    """One recording of a data set; the axes of each kind have their own mean and deviation."""
    spread = {"x": (0, 1), "y": (5, 2), "z": (-3, 0.5)}
    made = np.random.default_rng(0).normal(size=(400, 3))
    columns = [made[:, "xyz".index(a.lower())] * spread[a.lower()][1] + spread[a.lower()][0] for a in axes]
    values = SensorData(values=np.stack(columns, 1).astype("<f4"), rate_hz=50.0, units="g", axes=axes)
    (path,) = dataset_to_hdf5(root / name, dataset=name, species="cow", subject="a", sensors={sensor: values})
    return path


@pytest.mark.parametrize("name", ["slow", "fast"])
def test_a_recording_has_the_very_samples_of_the_stream(recordings, data, tmp_path, name):
    checkpoint, source, table = publish(tmp_path, data, WindowConfig(datasets=[name]))
    predictor = open_predictor(checkpoint)
    with window_stream(source, table, data, shuffle=False, origins=True) as stream:
        batch, _ = next(iter(stream.evaluation(len(table), len(table))))
    signals = {
        r.recording: signal_of(r, predictor, sensor=None, resample=False) for r in find_recordings(recordings / name)
    }
    for k, origin in enumerate(batch.origin):
        start = round(origin.start_s * signals[origin.recording].rate_hz)
        values = signals[origin.recording].read(start, start + batch.values.shape[1])
        assert np.array_equal(values, batch.values[k].numpy()), origin
    assert abs(batch.values.numpy().std() - 1) < 0.05
    assert abs(float(open_source(replace(data, normalize="none"), None).rows.scale.max()) - 1) < 0.05, (
        "not z-scores by themselves"
    )


def test_new_recordings_are_given_those_of_the_data_set_of_training(data, tmp_path):
    checkpoint, *_ = publish(tmp_path, data, WindowConfig(datasets=["fast"]))
    told = checkpoint.config()["data"]["statistics"]
    assert set(told) == {"fast", "slow"}
    results = predict(checkpoint, herd(tmp_path, "new"), tmp_path / "out", PredictOptions())
    assert "scaled by the statistics of the data set fast, which the model was trained on" in results.notes
    for asked, used in ((None, "fast"), ("slow", "slow")):
        predictor = open_predictor(checkpoint, statistics_of=asked)
        for sensor, axes in (("acc", ("x", "y", "z")), ("acc_neck", ("Z", "x", "Y"))):
            recording = read_recording(herd(tmp_path / sensor / str(asked), "new", sensor=sensor, axes=axes))
            values = signal_of(recording, predictor, sensor=None, resample=True).read(0, 20)
            plain = signal_of(
                recording, replace(predictor, normalize="none", statistics=None), sensor=None, resample=True
            )
            mean, std = np.array([told[used]["acc"][axis] for axis in "xyz"]).T
            np.testing.assert_allclose(values, (plain.read(0, 20) - mean) / std, rtol=1e-4, atol=1e-5)


def test_whose_statistics_is_asked_where_it_is_not_plain(data, tmp_path):
    both, *_ = publish(tmp_path, data, WindowConfig())
    new = herd(tmp_path, "new")
    with pytest.raises(
        RecordingError, match=r"statistics of fast, slow, none of them new; choose with --statistics_of"
    ):
        predict(both, new, tmp_path / "out", PredictOptions())
    with pytest.raises(ConfigError, match=r"--statistics_of nobody: the model knows those of fast, slow"):
        predict(both, new, tmp_path / "out", PredictOptions(statistics_of="nobody"))
    predict(both, new, tmp_path / "out", PredictOptions(statistics_of="slow"))
    plain, *_ = publish(tmp_path, replace(data, normalize="none"), WindowConfig())
    with pytest.raises(ConfigError, match=r"--statistics_of fast: store://m@2 was trained with data.normalize none"):
        predict(plain, new, tmp_path / "other", PredictOptions(statistics_of="fast"))


def test_a_model_of_before_is_refused(data, tmp_path):
    checkpoint, *_ = publish(tmp_path, data, WindowConfig())
    settings = checkpoint.config()
    settings["data"].pop("statistics")
    (checkpoint.path / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(CheckpointError, match="earlier version that did not keep the statistics"):
        open_predictor(checkpoint)


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("toys"))


TOLD: Statistics = {
    "toy": {"acc": {"x": [1.0, 2.0], "y": [0.1, 0.3], "z": [0.0, 4.0]}},
    "gone": {"acc": {"x": [0.0, 1.0]}},
}


@pytest.fixture
def pretrained(toys, tmp_path) -> str:
    """A backbone whose pretraining was scaled by other statistics than these shards have."""
    config = PretrainConfig(
        data=DataConfig(segment_duration=1.0, max_window_length=20, normalize="dataset", statistics=TOLD),
        model=ClassSpec(ENCODER, {"d_embedding": 64, "n_layers": 1, "patch_size": 5, "max_window_length": 20}),
        objective=ClassSpec(MASKED),
    )
    weights = build_objective(config.model, config.objective).state_dict()
    made = Store(tmp_path).publish("b", weights, config=dump(SCHEMA, config), card="", metrics={}, about={})
    return str(made.path)


def test_fine_tuning_is_scaled_as_pretraining_was(toys, pretrained):
    said = {"data.shards": toys, "init_from": pretrained, "split.test": "toy/s0"}
    config = load_config(flags(said))
    task = open_task(config)
    mean, std = np.array(list(TOLD["toy"]["acc"].values())).T
    np.testing.assert_array_equal(
        task.source.rows.scale, np.broadcast_to((1 / std).astype("f4"), task.source.rows.scale.shape)
    )
    np.testing.assert_array_equal(task.source.rows.zero[0], (-mean / std).astype("f4"))
    config, head = resolved(config, task)
    assert config.data.statistics == TOLD, (
        "they go on with the new model, and so do those of data sets that are not here"
    )
    text = dump(RESOLVED, replace(config, objective=head))
    assert yaml.safe_load(text)["data"]["statistics"] == TOLD
    other = load_config(flags(said | {"data.normalize": "segment"}))
    assert resolved(other, open_task(other))[0].data.statistics is None


def test_embedding_is_scaled_as_pretraining_was(toys, pretrained):
    assert stream_of(resolve(pretrained), [str(toys)]).statistics == TOLD


def test_pretraining_writes_down_what_it_measured(toys, tmp_path):
    data = DataConfig(shards=[str(toys)], segment_duration=1.0, max_window_length=20, normalize="dataset")
    model = ClassSpec(ENCODER, {"d_embedding": 64, "n_layers": 1, "patch_size": 5, "max_window_length": 20})
    config = PretrainConfig(out=str(tmp_path / "r"), data=data, model=model, objective=ClassSpec(MASKED))
    streams = open_streams(data, Ranks(0, 1, 0, 1))
    made = plan(config, initial_objective(config, start_of(config, RunDirectory.of(config.out))), streams)
    for stream in streams:
        stream.close()
    told = yaml.safe_load(made.text)["data"]["statistics"]
    pair = np.array(list(told["toy"]["acc"].values()))
    again = open_source(replace(data, statistics=told), "train").rows
    assert np.array_equal(again.scale, streams[0].source.rows.scale), "the text keeps every bit"
    assert np.array_equal(again.zero, streams[0].source.rows.zero)
    source, table = open_windows(replace(data, normalize="none"), WindowConfig(), unlabelled=True)
    with window_stream(source, table, replace(data, normalize="none"), shuffle=False) as stream:
        values = next(iter(stream.evaluation(len(table), len(table))))[0].values
    assert torch.allclose(torch.tensor(pair[:, 1], dtype=torch.float32), values.flatten(0, 1).std(0), rtol=0.02)


@pytest.mark.parametrize("pair", [[0.0], [0.0, 0.0], [0.0, -1.0], [0.0, 1.0, 2.0]])
def test_statistics_that_scale_nothing_are_refused(pair):
    with pytest.raises(ConfigError, match=r"data.statistics.d.acc.x must be \[mean, a positive deviation\]"):
        DataConfig(statistics={"d": {"acc": {"x": pair}}})
