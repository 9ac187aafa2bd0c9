"""The exported arrays equal an independent plain-NumPy cut of the same segments from the HDF5 files."""

import itertools
import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.exporting.command import main
from aar_dist.evaluation.exporting.npy import export_folds, export_pretraining
from aar_dist.evaluation.folds import folds_of
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig, MixtureConfig
from aar_dist.stream.loader import open_stream
from aar_dist.stream.windows import WindowConfig, open_windows
from aar_dist.training.finetuning.folds import keep_folds

CLASSES = ("eat", "rest", "walk")
LENGTH_S, LONGEST = 2.0, 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two data sets of 10 and 50 Hz (the faster one longer than LONGEST samples), raw counts, NaN gaps."""
    root, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(4)
    for name, rate in (("counts", 10.0), ("gaps", 50.0)):
        for subject, k in itertools.product("abcd", range(2)):
            n = round(rate * (60 + 9 * k))
            values = rng.normal(size=(n, 3))
            values = (values * 1000).astype("<i2") if name == "counts" else values.astype("<f4")
            if name == "gaps":
                values[100:130, 1] = values[777] = np.nan
            acc = SensorData(
                values=values, rate_hz=rate, units="g", axes=("x", "y", "z"), scale=0.001 if name == "counts" else None
            )
            label = np.repeat(rng.integers(-1, 3, 40), n // 20)[:n].astype(np.int16)
            dataset_to_hdf5(
                root / "data" / name, dataset=name, species="cow", subject=subject, sensors={"acc": acc}, label=label,
                classes=CLASSES, first_index=k,
            )  # fmt: skip
    options = BuildOptions(datasets=("counts", "gaps"), longest_segment_s=LENGTH_S, shard_bytes=40_000)
    return root / "data", build(root / "data", root / "set", options, workers=1).folder


@pytest.fixture
def data(made) -> DataConfig:
    return DataConfig(
        shards=[str(made[1])],
        segment_duration=LENGTH_S,
        max_window_length=LONGEST,
        mixture=MixtureConfig(oversampling_factor=2.0),
    )


def plain_cut(path, start_s: float) -> np.ndarray:
    """(LONGEST, 3) in g, NaN beyond the segment."""
    x = np.full((LONGEST, 3), np.nan, np.float32)
    with h5py.File(path) as file:
        rate = float(file["acc"].attrs["sr"])
        start, n = round(start_s * rate), min(round(LENGTH_S * rate), LONGEST)
        x[:n] = file["acc"][start : start + n].astype(np.float32) * np.float32(file["acc"].attrs.get("scale", 1.0))
    return x


def plain_windows(root, subjects) -> tuple[np.ndarray, np.ndarray]:
    """Windows of one label on a grid without overlap, by data set, file and time."""
    x, y = [], []
    for path in sorted(root.glob("*/*.hdf5")):
        with h5py.File(path) as file:
            rate, label = float(file["acc"].attrs["sr"]), file["label"][:]
            subject = f"{path.parent.name}/{file.attrs['subject']}"
            names = [str(c) for c in file["label"].attrs["classes"]]
        n = round(LENGTH_S * rate)
        for start in range(0, len(label) - n + 1, n):
            here = set(label[start : start + n].tolist())
            if subject in subjects and len(here) == 1 and here != {-1}:
                x.append(plain_cut(path, start / rate))
                y.append(sorted(CLASSES).index(names[here.pop()]))
    return np.stack(x), np.array(y)


def test_pretraining_arrays(made, data, tmp_path):
    sizes = export_pretraining(data, tmp_path / "out")
    for split in ("train", "val"):
        x = np.load(tmp_path / "out" / f"X_{split}.npy", mmap_mode="r")
        with open_stream(data, split, origins=True) as stream:
            origins = [o for b, w in stream.evaluation(64, 64) for o, one in zip(b.origin, w, strict=True) if one]
        assert x.shape == (len(origins), LONGEST, 3) == (sizes[f"X_{split}"], LONGEST, 3)
        assert x.dtype == np.float32
        plain = np.stack([plain_cut(made[0] / o.dataset / f"{o.recording}.hdf5", o.start_s) for o in origins])
        np.testing.assert_array_equal(x, plain)
        assert {o.dataset for o in origins} == {"counts", "gaps"}
        assert len({(o.recording, o.start_s) for o in origins}) > 0.8 * len(origins)
    assert np.isnan(plain).any(axis=(1, 2)).any()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["X_train.npy", "X_val.npy", "out"]


def test_fold_arrays(made, data, tmp_path):
    source, table = open_windows(data, WindowConfig())
    folds = folds_of(table, 4, shards=source.identity)
    export_folds(data, WindowConfig(), folds, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == list(CLASSES)
    tested = 0
    for number, fold in enumerate(folds.folds):
        sides = {"train": {*fold.train, *fold.validation}, "val": set(fold.test)}
        for side, subjects in sides.items():
            x, y = (np.load(tmp_path / "out" / f"fold_{number}" / f"{a}_{side}.npy") for a in "Xy")
            plain_x, plain_y = plain_windows(made[0], subjects)
            np.testing.assert_array_equal(x, plain_x)
            np.testing.assert_array_equal(y, plain_y)
            assert (x.dtype, y.dtype) == (np.float32, np.int64)
        tested += len(y)
    assert tested == len(table)


def test_what_does_not_fit_leaves_nothing(data, tmp_path):
    source, table = open_windows(data, WindowConfig())
    folds = folds_of(table, 4, shards=source.identity)
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="made for shards other"):
        export_folds(data, WindowConfig(), replace(folds, shards="other"), out)
    with pytest.raises(ConfigError, match=r"made for the classes \['eat', 'rest', 'walk'\], the windows carry"):
        export_folds(data, WindowConfig(classes=["eat", "walk"]), folds, out)
    few = replace(folds.fold(0), test=("counts/z",))
    with pytest.raises(ConfigError, match="fold 0 has no window of 2 s on its val side"):
        export_folds(data, WindowConfig(), replace(folds, folds=(few,)), out)
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    with pytest.raises(ConfigError, match="exists; remove it"):
        export_pretraining(data, out)


def test_the_command(made, data, tmp_path, capsys):
    source, table = open_windows(data, WindowConfig(classes=["walk", "rest"]))
    keep_folds(tmp_path / "folds.json", folds_of(table, "leave_one_out", shards=source.identity))
    flags = f"--segment_duration {LENGTH_S} --max_window_length {LONGEST} --oversampling_factor 2".split()
    main(["npy", str(made[1]), str(tmp_path / "pre"), *flags])
    main(["npy", str(made[1]), str(tmp_path / "fine"), *flags, "--folds", str(tmp_path / "folds.json")])
    said = capsys.readouterr().out
    export_pretraining(data, tmp_path / "again")
    x = np.load(tmp_path / "pre" / "X_train.npy")
    np.testing.assert_array_equal(x, np.load(tmp_path / "again" / "X_train.npy"))
    assert f"pre/X_train.npy: {len(x)} segments" in said
    assert len(list((tmp_path / "fine").glob("fold_*/y_val.npy"))) == 8
    y = np.concatenate([np.load(p) for p in sorted((tmp_path / "fine").glob("fold_*/y_val.npy"))])
    assert sorted(y) == sorted(table.label)
    with pytest.raises(SystemExit) as stop:
        main(["csv", str(made[1]), "x"])
    assert stop.value.code == 2
    assert "invalid choice: 'csv'" in capsys.readouterr().err
