"""An exported file says what the stored model says, on windows of the shards and on windows with holes."""

import json
import re
import sys
import zipfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from finetune_toys import publish_backbone
from stored import publish

from aar_dist.base.errors import CheckpointError, ConfigError
from aar_dist.evaluation.exporting import formats, parity
from aar_dist.evaluation.exporting import model as exporting
from aar_dist.evaluation.exporting.command import main
from aar_dist.evaluation.exporting.form import Form, merged
from aar_dist.evaluation.exporting.model import export
from aar_dist.evaluation.exporting.parity import SIZES, in_turn, largest_difference
from aar_dist.evaluation.exporting.prepare import ExportOptions, prepare
from aar_dist.evaluation.exporting.windows import Known, with_holes
from aar_dist.recordings.convert import CONVERTERS, convert
from aar_dist.recordings.converter import Options
from aar_dist.shards.build import BuildOptions, build
from aar_dist.store.checkpoint import verified
from aar_dist.stream.config import DataConfig
from aar_dist.stream.windows import WindowConfig

QUICK = ("spectral", "conv", "seconds", "statistics", "own")
"""Of the variants below, those that every test run exports."""
DOCS = Path(__file__).parents[2] / "docs/export.md"
FAST, SLOW = ExportOptions(rate_hz=50.0, windows=100), ExportOptions(rate_hz=10.0, windows=100)
SECONDS = {"patch_seconds": 0.25, "patch_size": 5}
# Every way in which a model, its task and its windows differ: what it is published with, and how it is exported.
VARIANTS = {
    "linear": ({}, {}, SLOW),
    "last": ({}, {"pooling": "last", "input_mode": "single"}, SLOW),
    "spectral": ({}, {"embedding_type": "spectral", "pooling": "moments"}, SLOW),
    "conv": ({"normalize": "segment"}, {"embedding_type": "conv", "patch_size": 16}, FAST),
    "seconds": ({"normalize": "centre"}, {**SECONDS, "pooling": "last"}, FAST),
    "faithful": ({}, {"faithful": True, "embedding_type": "conv", "patch_size": 16}, FAST),
    "value": ({"normalize": "recording"}, {"regression": True}, FAST),
    "statistics": ({"normalize": "dataset"}, {}, replace(FAST, statistics_of="fast")),
    "sensors": ({"sensors": ["acc", "gyr"]}, {"pooling": "last"}, SLOW),
    "embedding": ({}, {}, replace(SLOW, embed=True)),
    "own": ({}, {"channels": ["acc.z", "acc.x", "acc.y"]}, SLOW),
    "own conv": ({}, {"channels": ["acc.z", "acc.x", "acc.y"], "embedding_type": "conv", "patch_size": 16}, FAST),
}


@pytest.fixture(autouse=True)
def _asked_a_few_times(monkeypatch):
    """How fast it is, is no matter here."""
    monkeypatch.setattr(parity, "LONG_ENOUGH_S", 0.0)


def data_of(shard_set, **settings) -> DataConfig:
    return DataConfig(shards=[str(shard_set)], segment_duration=0.7, max_window_length=50, **settings)


def published(shard_set, folder, variant):
    settings, arguments, options = VARIANTS[variant]
    return publish(folder, data_of(shard_set, **settings), WindowConfig(), **arguments)[0], options


@pytest.mark.parametrize("variant", [v if v in QUICK else pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS])
def test_a_program_says_what_the_model_says(shard_set, tmp_path, variant):
    checkpoint, options = published(shard_set, tmp_path, variant)
    made = export(checkpoint, [str(shard_set)], tmp_path / "m.pt2", "torch", options)
    assert made.parity.error < 1e-5
    assert (made.parity.windows, made.parity.windows_with_holes) == (100, 64)
    extra = {formats.ABOUT_FILE: ""}
    program = torch.export.load(tmp_path / "m.pt2", extra_files=extra).module()
    about = json.loads(extra[formats.ABOUT_FILE])
    width = {"sensors": 6}.get(variant, 3)
    assert about == {k: v for k, v in json.loads((tmp_path / "m.pt2.json").read_text()).items() if k != "parity"}
    samples = round(0.7 * options.rate_hz)
    assert (about["rate_hz"], about["samples"], len(about["channels"])) == (options.rate_hz, samples, width)
    shape = {"value": (), "embedding": (64,)}.get(variant, (3,))
    for n in (1, 2, 33):
        assert program(torch.randn(n, samples, width)).shape == (n, *shape)
    with zipfile.ZipFile(tmp_path / "m.pt2") as file:
        assert not [name for name in file.namelist() if file.read(name)[:2] in (b"\x80\x02", b"PK")], "a pickle"


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_onnx_of_everything(shard_set, tmp_path, variant):
    checkpoint, options = published(shard_set, tmp_path, variant)
    assert export(checkpoint, [str(shard_set)], tmp_path / "m.onnx", "onnx", options).parity.error < 1e-5


def test_onnx_by_the_command_and_the_example_of_the_docs(shard_set, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint, _ = published(shard_set, tmp_path, "seconds")
    flags = ["--rate_hz", "50", "--store", str(tmp_path / "store"), "--windows", "30"]
    main(["onnx", "store://m@1", "--windows", "9", str(shard_set), "cow.onnx", *flags])
    said = capsys.readouterr().out
    assert re.search(r"cow.onnx: [\d.]+ kB; stored [\d.]+ kB\n", said)
    assert "takes          0.7 s of acc.x, acc.y, acc.z [g] at 50 Hz: float32 (batch, 35, 3)\n" in said
    assert "says           probability of rest, run, walk\n" in said
    assert re.search(r"parity +largest difference \d\.\de-\d\d on 30 real windows and 30 with holes, in batches", said)
    assert re.search(r"batch of 64 +[\d.]+ ms in one thread; the stored model [\d.]+ ms\n", said)
    assert {p.name for p in tmp_path.iterdir()} == {"cow.onnx", "cow.onnx.json", "store"}
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    values = np.random.default_rng(0).normal(size=(1, 35, 3)).astype(np.float32)
    values[0, 20:] = np.nan
    np.save("window.npy", values)
    # By itself: onnxruntime and NumPy are all it needs.
    names: dict = {}
    before = set(sys.modules)
    exec(example, names)
    assert not [name for name in {*sys.modules} - before if name.startswith("aar_dist")]
    model = prepare(checkpoint, [], ExportOptions(rate_hz=50.0, parity=False)).model
    expected = model(torch.from_numpy(values)).detach().numpy()
    np.testing.assert_allclose(names["probability"], expected, atol=1e-5)
    assert capsys.readouterr().out == f"{('rest', 'run', 'walk')[expected.argmax()]}\n"


def test_a_pretrained_model_gives_embeddings(shards, tmp_path):
    checkpoint = publish_backbone(tmp_path / "store")
    made = export(checkpoint, [str(shards)], tmp_path / "m.pt2", "torch", ExportOptions(parity=False))
    assert (made.about["output"], made.about["classes"], made.about["rate_hz"]) == ("embedding", None, 20.0)
    assert made.about["units"] == ["g"] * 3
    assert "parity         not checked" in made.summary()
    with pytest.raises(ConfigError, match="nothing in the store tells the rates"):
        export(checkpoint, [], tmp_path / "n.pt2", "torch", ExportOptions(parity=False))


@pytest.mark.real
def test_published_ppg(shared_data, tmp_path):
    source = Options(source=shared_data / "but_ppg_v1_48.tar.xz")
    convert(CONVERTERS["but_ppg"], tmp_path / "data", source)
    options = BuildOptions(datasets=("but_ppg",), longest_segment_s=10.0)
    shards = build(tmp_path / "data", tmp_path / "set", options, workers=1).folder
    data = DataConfig(shards=[str(shards)], kinds=["ppg"], max_window_length=400, normalize="segment")
    model = {"patch_seconds": 0.5, "patch_size": 16, "embedding_type": "conv", "max_window_length": 400}
    checkpoint, *_ = publish(tmp_path, data, WindowConfig(), regression=True, **model)
    made = export(checkpoint, [str(shards)], tmp_path / "m.onnx", "onnx")
    assert made.parity.windows == 48
    assert made.parity.error < 1e-5, "though they lie at -213 and swing by 0.1"
    assert made.about["units"] == ["arbitrary"]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("format", exporting.SUFFIX)
@pytest.mark.parametrize("variant", ["last", "conv", "seconds", "faithful", "statistics", "embedding"])
def test_published_cattle(cattle, tmp_path, variant, format):
    settings, arguments, options = VARIANTS[variant]
    data = DataConfig(shards=[str(cattle)], segment_duration=5.0, max_window_length=100, **settings)
    checkpoint, *_ = publish(tmp_path, data, WindowConfig(), **{**arguments, "max_window_length": 100})
    options = replace(options, rate_hz=None, statistics_of=None, windows=512)
    made = export(checkpoint, [str(cattle)], tmp_path / f"m{exporting.SUFFIX[format]}", format, options)
    assert made.parity.windows == 512
    assert made.parity.error < 1e-4


@pytest.fixture(scope="module")
def cattle(shared_data, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cattle")
    convert(CONVERTERS["cow_walking"], root / "data", Options(source=shared_data / "cow_walking_raw.tar.xz"))
    options = BuildOptions(datasets=("cow_walking",), longest_segment_s=5.0)
    return build(root / "data", root / "set", options, workers=1).folder


def test_a_file_that_says_something_else_is_not_written(shard_set, tmp_path, monkeypatch):
    checkpoint, options = published(shard_set, tmp_path, "linear")

    def other(model):
        changed = deepcopy(model)
        with torch.no_grad():
            changed.model.head.linear.bias[0] += 0.01
        return formats.trace(changed)

    monkeypatch.setattr(exporting, "formats", SimpleNamespace(**{**vars(formats), "trace": other}))
    with pytest.raises(
        CheckpointError, match=r"m\.pt2: says something else than store://m@1: largest difference .*e-0"
    ):
        export(checkpoint, [str(shard_set)], tmp_path / "m.pt2", "torch", options)
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_a_form_is_chosen_or_an_error_says_how(shard_set, tmp_path, capsys):
    store = ["--store", str(tmp_path / "store")]
    every = publish(tmp_path, data_of(shard_set, kinds=["acc", "gyr"], normalize="dataset"), WindowConfig())[0]
    publish(tmp_path, data_of(shard_set), WindowConfig(), **SECONDS)
    (tmp_path / "taken.pt2").touch()
    acc = ["--channels", "acc.x", "acc.y", "acc.z"]
    for argv, said in [
        (["m.pt2"], "store://m@1: its windows were recorded at 10, 50 Hz, and an exported model takes windows of one"),
        (["m.pt2", "--rate_hz", "25"], "--rate_hz 25: store://m@1 knows windows at 10, 50 Hz, and its features depend"),
        (["m.pt2", "--rate_hz", "50"], "the channels acc.x, acc.y, acc.z or gyr.x, gyr.y, gyr.z; an exported model"),
        (["m.pt2", "--rate_hz", "50", "--channels", "acc.w"], "--channels acc.w: store://m@1 knows the channels acc.x"),
        (["m.pt2", "--rate_hz", "50", *acc], "with the statistics of fast, slow, an exported model takes those of one"),
        (["m.pt2", "--rate_hz", "50", "--statistics_of", "horse", *acc], "the model knows those of fast, slow"),
        (["m.pt2", "--rate_hz", "50", "--statistics_of", "slow", *acc], "at 50 Hz of slow/acc to compare on; give sh"),
        (["m.onnx"], "m.onnx: export torch writes a .pt2 file; name it m.pt2"),
        (["taken.pt2"], "taken.pt2: exists; remove it"),
        (["m.pt2", "--rate_hz", "nan"], "--rate_hz must be positive, got nan"),
        (["m.pt2", "--windows", "0"], "--windows must be at least 1, got 0"),
        (["m.pt2", "--tolerance", "-1"], "--tolerance must be 0 or more, got -1"),
        (["m.pt2", "--window", "3"], "--window: no such flag; did you mean --windows? (see aar-dist export torch"),
    ]:
        out = str(tmp_path / argv[0])
        with pytest.raises(SystemExit) as stop:
            main(["torch", "store://m@1", str(shard_set), out, *argv[1:], *store])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    with pytest.raises(ConfigError, match="give shards with windows to compare on"):
        export(every, [], tmp_path / "m.pt2", "torch")
    with pytest.raises(ConfigError, match=r"no window of acc\.x, acc\.y, acc\.z at 33 Hz to compare on"):
        export(verified(tmp_path / "store/models/m/2"), [str(shard_set)], tmp_path / "m.pt2", "torch",
               ExportOptions(rate_hz=33.0))  # fmt: skip
    other = prepare(verified(tmp_path / "store/models/m/2"), [], ExportOptions(rate_hz=33.0, parity=False)).model
    assert other(torch.randn(2, 23, 3)).shape == (2, 3), "patches that last so many seconds take any rate"
    assert {p.name for p in tmp_path.iterdir()} == {"store", "taken.pt2"}


def test_packages_that_are_not_there_and_weights_too_large(shard_set, tmp_path, monkeypatch):
    checkpoint, options = published(shard_set, tmp_path, "linear")
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ConfigError, match=r"export onnx needs onnxscript: pip install 'aar_dist\[onnx\]'"):
        export(checkpoint, [str(shard_set)], tmp_path / "m.onnx", "onnx", options)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"the weights are 4\.0 GB and one file of ONNX holds 2; export torch"):
        formats.check_onnx(4_000_000_000)


def test_channels_that_windows_lack_are_absent(shard_set, tmp_path):
    """Where a sensor lacks an axis that others have, the column behind it stays empty, in training and here."""
    checkpoint, *_ = publish(tmp_path, data_of(shard_set, sensors=["acc", "gyr"]), WindowConfig(datasets=["fast"]))
    file = checkpoint.path / "manifest.json"
    manifest = yaml.safe_load(file.read_text())
    manifest["columns"] = [["acc.x", "acc.y", None, "gyr.x", "gyr.y", "gyr.z"]]
    lacking = replace(checkpoint, manifest=manifest)
    options = ExportOptions(parity=False)
    five, six = (prepare(c, [], options).model for c in (lacking, checkpoint))
    values = torch.randn(4, 35, 6)
    values[..., 2] = torch.nan
    with torch.no_grad():
        torch.testing.assert_close(five(values[..., [0, 1, 3, 4, 5]]), six(values))


def test_ways_to_fill_columns_are_merged_where_they_agree():
    x, y, z, g = "acc.x", "acc.y", "acc.z", "gyr.x"
    assert merged([(x, y, z, None), (None, None, None, g)]) == [(x, y, z, g)]
    assert merged([(x, y, z), ("ecg.i", None, None)]) == [(x, y, z), ("ecg.i",)]
    form = Form(rate_hz=1, duration_s=1, samples=1, columns=(x, y, None, g), vocabulary=(g, x, y, z))
    assert form.channels == (x, y, g)
    assert form.index == [1, 2, -1, 0]
    assert [form.agrees(way) for way in ((x, None, None, None), (x, y, z, g), (None,) * 4, (x, y, None, g, z))] == [
        True, False, False, False
    ]  # fmt: skip


def test_holes_are_of_all_kinds_and_the_same_every_time():
    values = np.ones((20, 30, 3), np.float32)
    made = with_holes(values)
    np.testing.assert_array_equal(made, with_holes(values))
    missing = np.isnan(made)
    assert values.all()
    assert missing.any(axis=(1, 2)).sum() >= 18
    assert (missing.all(1).any(1) & ~missing.all((1, 2))).any(), "a channel"
    assert missing[-1].all()
    assert (missing[:, -1].all(1) & ~missing[:, 0].any(1)).any(), "the end"


def test_few_windows_are_asked_about_in_batches_of_every_size():
    values = np.ones((2, 5, 1), np.float32)
    asked = []

    def wrong_in_large_batches(some):
        asked.append(len(some))
        return np.full(len(some), float(len(some) == SIZES[-1]), np.float32)

    made = parity.compare(wrong_in_large_batches, lambda some: torch.zeros(len(some)), Known(values, np.zeros(2)))
    assert asked == [*SIZES, *SIZES]
    assert (made.recorded, made.holed, made.windows) == (1, 1, 2)


def test_answers_are_compared_in_batches_of_every_size():
    values, asked = np.arange(100, dtype=np.float32), []

    def ask(some):
        asked.append(len(some))
        return some

    np.testing.assert_array_equal(in_turn(ask, values), values)
    assert asked == [*SIZES, 1, 7, 20]
    assert largest_difference(values, values) == 0
    assert largest_difference(values, values + np.float32(0.5)) == 0.5
    nothing = np.full(3, np.nan, np.float32)
    assert largest_difference(nothing, nothing) == 0
    assert largest_difference(nothing, values[:3]) == np.inf
