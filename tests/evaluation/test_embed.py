"""Embeddings are those of the stored backbone, and say where they come from."""

import dataclasses

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from stored import publish

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.embed import embed, main
from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.masked import MaskedReconstruction
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.store.checkpoint import Opened
from aar_dist.store.registry import Store
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.config import DataConfig
from aar_dist.stream.windows import WindowConfig, open_windows

CONFIG = """
data: {max_window_length: 40, segment_duration: 0.6, normalize: none, sensors: each, kinds: [acc]}
model: {class_path: aar_dist.models.transformer.AAREncoder, init_args: {d_embedding: 64, n_layers: 1, patch_size: 5}}
objective: {class_path: aar_dist.objectives.masked.MaskedReconstruction}
"""


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(3)
    module = MaskedReconstruction(AAREncoder(d_embedding=64, n_layers=1, max_window_length=40, patch_size=5))
    return Store(tmp_path / "store").publish(
        "toy", module.state_dict(), config=CONFIG, card="# toy\n", metrics={}, about={"shards": "x"}
    )


def by_hand(checkpoint, recordings, row) -> np.ndarray:
    """The mean token of one window, read from its file."""
    with h5py.File(recordings / row["dataset"] / f"{row['recording']}.hdf5") as file:
        rate, scale = float(file["acc"].attrs["sr"]), np.float32(file["acc"].attrs.get("scale", 1.0))
        n, start = round(0.6 * rate), round(row["start_s"] * rate)
        values = torch.from_numpy(file["acc"][start : start + n].astype(np.float32) * scale)[None]
    batch = SegmentBatch(
        values=values, valid=torch.ones_like(values, dtype=torch.bool), rate_hz=torch.tensor([rate]),
        dataset=torch.zeros(1, dtype=torch.int64), channel=torch.arange(3)[None], key=torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    backbone = checkpoint.objective().backbone
    with torch.no_grad():
        tokens, valid = backbone.encode(batch)[0], backbone.token_valid(batch)[0]
    return tokens[valid].mean(0).numpy()


def test_embeddings_are_mean_tokens_of_their_seconds(checkpoint, recordings, shard_set, tmp_path):
    out = tmp_path / "deep" / "out.parquet"
    n = embed(checkpoint, [str(shard_set)], out, batch_size=37)
    table = pq.read_table(out)
    rows = table.to_pylist()
    data = DataConfig(shards=[str(shard_set)], segment_duration=0.6, max_window_length=40)
    _, windows = open_windows(data, WindowConfig())
    assert n == len(rows) == len(windows)
    origin = ["dataset", "subject", "recording", "sensor", "start_s", "stop_s"]
    assert table.schema.names == [*origin, "label", "embedding"]
    assert table.schema.metadata[b"model"] == b"store://toy@1"
    assert {r["dataset"] for r in rows} == {"fast", "slow"}
    for i in range(0, n, n // 40):
        row = rows[i]
        assert row["label"] == windows.classes[windows.label[i]]
        assert (row["recording"], row["subject"]) == (windows.recording[i], windows.subject[i])
        assert row["stop_s"] == pytest.approx(row["start_s"] + 0.6)
        np.testing.assert_allclose(row["embedding"], by_hand(checkpoint, recordings, row), atol=2e-5)
    assert [p.name for p in out.parent.iterdir()] == ["out.parquet"]


def test_all_windows_have_a_label_or_none(checkpoint, shard_set, tmp_path, capsys):
    main([str(checkpoint.path), str(shard_set), str(tmp_path / "all.parquet"), "--all", "--device", "cpu"])
    main(
        [str(checkpoint.path), str(shard_set), str(tmp_path / "some.parquet"), "--device", "cpu", "--batch_size", "64"]
    )
    every, some = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("all", "some"))
    assert f"all.parquet: {every.num_rows} windows" in capsys.readouterr().out
    labelled = [r for r in every.to_pylist() if r["label"] is not None]
    assert len(labelled) == some.num_rows < every.num_rows
    for one, other in zip(labelled, some.to_pylist(), strict=True):
        assert {k: v for k, v in one.items() if k != "embedding"} == {
            k: v for k, v in other.items() if k != "embedding"
        }
        np.testing.assert_allclose(one["embedding"], other["embedding"], atol=2e-5)


def test_unlabelled_recordings_give_a_plain_grid(checkpoint, tmp_path):
    values = np.random.default_rng(0).normal(size=(100, 3)).astype("<f4")
    values[20:30] = np.nan  # one window without a sample, one with some
    values[40:43, 1:] = np.nan
    sensors = {"acc": SensorData(values=values, rate_hz=10.0, units="g", axes=("x", "y", "z"))}
    for subject in "ab":
        dataset_to_hdf5(tmp_path / "d" / "wild", dataset="wild", species="cow", subject=subject, sensors=sensors)
    build(tmp_path / "d", tmp_path / "set", BuildOptions(datasets=("wild",), longest_segment_s=1.0), workers=1)
    out = tmp_path / "out.parquet"
    assert embed(checkpoint, [str(tmp_path / "set")], out, windows=WindowConfig(hop_s=2.0)) == 8
    rows = pq.read_table(out).to_pylist()
    assert [r["start_s"] for r in rows] == [0, 4, 6, 8] * 2
    assert np.abs([r["embedding"] for r in rows]).max(1).min() > 0.01
    assert {r["label"] for r in rows} == {None}


def test_a_fine_tuned_model_of_several_sensors(shard_set, tmp_path):
    data = DataConfig(shards=[str(shard_set)], sensors=["acc", "gyr"], segment_duration=0.6, max_window_length=50)
    tuned, *_ = publish(tmp_path, data, WindowConfig())
    n = embed(tuned, [str(shard_set)], tmp_path / "out.parquet", limit=200)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert {(r["dataset"], r["sensor"]) for r in rows} == {("fast", "acc+gyr"), ("slow", "acc")}
    assert n == len(rows) == len({(r["recording"], r["start_s"]) for r in rows}) == 200


def test_what_cannot_be_embedded_leaves_nothing(checkpoint, shard_set, tmp_path, capsys):
    out = tmp_path / "out.parquet"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="exists; remove it"):
        embed(checkpoint, [str(shard_set)], out)
    assert out.read_text() == "mine"
    bad = dataclasses.replace(checkpoint, open=lambda: Opened(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text(CONFIG.replace("0.6", "60"))
    with pytest.raises(ConfigError, match="built for segments up to 1 s"):
        embed(bad, [str(shard_set)], tmp_path / "none.parquet")
    for argv, said in [
        (["store://toy@9", str(shard_set), "x.parquet", "--store", str(tmp_path / "store")], "no version 9"),
        ([str(checkpoint.path), str(shard_set), "x.parquet", "--batch_size", "0"], "--batch_size must be at least 1"),
        ([str(checkpoint.path), str(shard_set), "x.parquet", "--device", "cuda:99"], "--device cuda:99: "),
    ]:
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("*.staging-*"))
