"""Packing: errors within their bound, gaps stay gaps, the same bytes every time, and every reader sees the values."""

import functools
import json
import shutil

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_build import assert_refused

from aar_dist.base.errors import RecordingError
from aar_dist.cli import main as aar_dist
from aar_dist.evaluation.fingerprints import find_copies
from aar_dist.evaluation.tracks import tracks_of_shards
from aar_dist.recordings.contract import find_recordings
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.shards.checks import MISSING
from aar_dist.shards.format import identity_of, read_info, read_manifest
from aar_dist.shards.grids import Extent, choose_grid, pack_recordings
from aar_dist.shards.packing import grid_of, pack
from aar_dist.shards.summary import render, summarize
from aar_dist.shards.verify import verify_shards
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import open_stream

FORMATS = ("int16", "float16")
RATE_HZ = 50.0


def gravity(rng, n: int) -> np.ndarray:
    """An accelerometer at work, as float32, with gaps."""
    values = rng.normal([0.0, 0.3, 1.0], [0.2, 0.5, 0.1], size=(n, 3)).astype("<f4")
    values[rng.random(n) < 0.03] = np.nan
    values[n // 3 : n // 3 + 40, 1] = np.nan
    return values


def write(root, subject: str, values: np.ndarray, **of) -> None:
    acc = SensorData(values=values, rate_hz=RATE_HZ, units="g", axes=("x", "y", "z"), **of)
    dataset_to_hdf5(root / "herd", dataset="herd", species="cow", subject=subject, sensors={"acc": acc})


@pytest.fixture(scope="module")
def herd(tmp_path_factory):
    """Float32 with gaps; one recording with a spike, one of raw int16; the same 200 samples in three of them."""
    root, rng = tmp_path_factory.mktemp("herd"), np.random.default_rng(0)
    of = {subject: gravity(rng, 4000) for subject in "abcd"}
    of["d"][100, 2] = 1e5
    for subject, at in (("b", 700), ("d", 2000)):
        of[subject][at : at + 200] = of["a"][300:500]
    for subject, values in of.items():
        write(root, subject, values)
    raw = rng.integers(-32768, 32767, size=(4000, 3)).astype("<i2")
    raw[7] = MISSING
    write(root, "e", raw, scale=0.001)
    return root


def options(form: str, **of) -> BuildOptions:
    return BuildOptions(datasets=("herd",), longest_segment_s=1.0, shard_bytes=60_000, pack={"acc": form}, **of)


@pytest.fixture(scope="module", params=FORMATS)
def packed_set(request, herd, tmp_path_factory):
    return build(herd, tmp_path_factory.mktemp("set") / request.param, options(request.param), workers=1).folder


@functools.cache
def source_of(herd, recording: str) -> np.ndarray:
    with h5py.File(herd / "herd" / f"{recording}.hdf5") as file:
        stored, scale = file["acc"][:], file["acc"].attrs.get("scale", 1.0)
    return stored.astype(np.float64) * scale


def extent(x: np.ndarray) -> Extent:
    return Extent(low=np.nanmin(x, 0), high=np.nanmax(x, 0), mean=np.nanmean(x, 0), std=np.nanstd(x, 0))


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(1e-6, 1e3)), min_size=1, max_size=5),
    st.floats(1e-4, 0.5),
    st.integers(0, 2**16),
)
def test_no_value_moves_further_than_allowed_and_gaps_survive(form, recordings, max_error, seed):
    rng = np.random.default_rng(seed)
    values = [rng.standard_t(3, size=(300, 1)) * spread + centre for centre, spread in recordings]
    for x in values:
        x[rng.random(300) < 0.1] = np.nan
    extents = [extent(x) for x in values]
    grid, fits = choose_grid(form, extents, max_error)
    allowed = max_error * np.median([np.nanstd(x) for x in values])
    for x in (x for x, fit in zip(values, fits, strict=True) if fit):
        again = grid.unpack(grid.pack(x))
        assert np.array_equal(np.isnan(again), np.isnan(x))
        assert np.nanmax(np.abs(again - x)) <= allowed * (1 + 1e-9)
        assert np.array_equal(grid.pack(again), grid.pack(x), equal_nan=True)


def test_what_is_on_a_binary_grid_is_kept_exactly():
    x = np.arange(-20_000, 20_000)[:, None] * 2.0**-14
    grid, fits = choose_grid("int16", [extent(x)], 0.01)
    assert fits == [True]
    assert np.array_equal(grid.unpack(grid.pack(x)), x)


def test_an_axis_of_one_value_is_kept_exactly_and_one_without_any_stays_empty():
    x = np.full((10, 2), 0.1)
    x[:, 1] = np.nan
    ends = Extent(low=x[0], high=x[0], mean=x[0], std=np.array([0.0, np.nan]))
    for form in FORMATS:
        grid, fits = choose_grid(form, [ends, ends], 0.01)
        assert fits == [True, True]
        assert np.array_equal(grid.unpack(grid.pack(x)), x, equal_nan=True)


def test_a_packed_set_holds_the_recordings_within_the_error_it_tells(herd, packed_set):
    info, seen = read_info(packed_set), {}
    (told,) = info["packing"]
    for row in read_manifest(packed_set, info).to_pylist():
        stored = np.memmap(packed_set / row["shard"], row["dtype"], "r", row["offset"], (row["n_samples"], 3))
        first = round(row["start_s"] * RATE_HZ)
        exact = source_of(herd, row["recording"])[first : first + row["n_samples"]]
        x = np.where(stored == MISSING, np.nan, stored) if row["dtype"] == "int16" else stored
        x = x.astype(np.float64) * row["scale"] + row["zero"]
        assert np.array_equal(np.isnan(x), np.isnan(exact))
        error = np.nanmax(np.abs(x - exact), axis=0)
        if row["dtype"] == packed_set.name:
            seen[row["recording"]] = np.fmax(seen.get(row["recording"], 0), error)
            assert (row["units"], row["scale"], row["zero"]) == ("g", told["scale"], told["zero"])
        else:
            assert (row["recording"], row["dtype"]) in (("cow_d_ds_0", "<f4"), ("cow_e_ds_0", "<i2"))
            assert not error.any()
        owned = exact[: row["owned_starts"]]
        np.testing.assert_allclose(row["mean"], np.nanmean(owned, 0), rtol=1e-9)
        assert row["n_valid"] == np.isfinite(owned).sum(0).tolist()
    assert sorted(seen) == ["cow_a_ds_0", "cow_b_ds_0", "cow_c_ds_0"]
    assert told["kept"] == ["cow_d_ds_0"]
    assert told["error"] == np.max(list(seen.values()), axis=0).tolist()
    assert max(told["error_of_std"]) <= 0.01
    assert "all hashes match" in verify_shards(packed_set)


def test_the_stream_hands_on_what_was_packed(herd, packed_set):
    error = np.max(read_info(packed_set)["packing"][0]["error"])
    data = DataConfig(shards=[str(packed_set)], segment_duration=1.0, max_window_length=50)
    seen = set()
    with open_stream(data, "train", origins=True) as train, open_stream(data, "val", origins=True) as val:
        for stream in (train, val):
            for batch, _ in stream.evaluation(64, 64):
                for x, ok, of in zip(batch.values, batch.valid, batch.origin, strict=True):
                    first = round(of.start_s * RATE_HZ)
                    exact = torch.from_numpy(source_of(herd, of.recording)[first : first + 50])
                    assert torch.equal(ok, torch.isfinite(exact))
                    assert (x - exact)[ok].abs().max() <= error + 1e-5 * exact[ok].abs().max()
                    assert not x[~ok].any()
                    seen.add(of.recording)
    assert len(seen) == 5


def test_copies_are_found_among_packed_and_kept_recordings(packed_set):
    found = {(c.first.recording, c.second.recording) for c in find_copies(tracks_of_shards([packed_set]))}
    a, b, d = (f"cow_{x}_ds_0" for x in "abd")
    assert {(a, b), (a, d), (b, d)} <= {tuple(sorted(pair)) for pair in found}


def test_copies_are_found_between_a_packed_set_and_one_as_recorded(herd, packed_set, tmp_path, capsys):
    """The same herd under another name, not packed: no byte is the same, but each recording finds itself again."""
    for path in sorted((herd / "herd").glob("*.hdf5")):
        (tmp_path / "other").mkdir(exist_ok=True)
        copy = shutil.copy(path, tmp_path / "other" / path.name)
        with h5py.File(copy, "r+") as file:
            file.attrs["dataset"] = "other"
    other = BuildOptions(datasets=("other",), longest_segment_s=1.0)
    plain = build(tmp_path, tmp_path / "plain", other, workers=1).folder
    aar_dist(["audit", str(plain), str(packed_set)])
    told = capsys.readouterr().out
    for subject in "abcde":
        a, b = (f"{name}/cow_{subject}_ds_0 of {name}/{subject} from 0 s" for name in ("herd", "other"))
        assert f"{a} and {b} share 80 s" in told


def test_packed_sets_are_smaller_and_told_of(herd, tmp_path):
    plain = build(herd, tmp_path / "plain", BuildOptions(datasets=("herd",), longest_segment_s=1.0), workers=1)
    small = build(herd, tmp_path / "small", options("int16"), workers=1)
    assert small.info["totals"]["bytes"] < 0.75 * plain.info["totals"]["bytes"]
    assert plain.info["packing"] == []
    text = render(summarize(small.folder))
    assert "packed herd acc as int16: 3 recordings, worst error" in text
    assert " g, 0.012 % of the deviation and 0.0013 % of the range" in text
    assert "kept as recorded, because they do not fit: 1, such as cow_d_ds_0" in text
    assert json.loads(summarize(small.folder).as_json())["packing"][0]["format"] == "int16"


def test_an_error_as_small_as_none_can_meet_keeps_all_as_recorded(herd, tmp_path):
    made = build(herd, tmp_path / "set", options("float16", max_pack_error=1e-9), workers=1)
    assert made.info["packing"][0]["recordings"] == 0
    types = {row["dtype"] for row in pq.read_table(made.folder / "manifest.parquet").to_pylist()}
    assert types == {"<f4", "<i2"}
    text = render(summarize(made.folder))
    assert "not packed: herd acc: none of 4 recordings fits float16 within --max_pack_error; all stay" in text
    assert "worst error" not in text


def test_the_worst_error_is_what_packing_did(herd):
    recordings = find_recordings(herd / "herd")
    stored, _ = pack_recordings(recordings, {"acc": "int16"}, 0.01, lambda job, items: list(map(job, items)))
    assert [r.sensors[0].dtype for r in stored] == ["int16", "int16", "int16", "<f4", "<i2"]
    assert stored[4].sensors[0] is recordings[4].sensors[0]
    sensor, values = stored[0].sensors[0], source_of(herd, "cow_a_ds_0").astype("<f4")
    grid = grid_of(sensor.dtype, sensor.scale, sensor.offset)
    packed, worst = pack(values, recordings[0].sensors[0], grid)
    assert np.array_equal(np.nanmax(np.abs(grid.unpack(packed) - values), axis=0), worst)
    assert (worst <= np.array(grid.scale) / 2).all()


def test_values_without_a_unit_get_none_by_packing(tmp_path):
    rng = np.random.default_rng(0)
    for subject, units in (("a", "arbitrary"), ("b", "uV")):
        ecg = SensorData(values=rng.normal(size=(300, 1)).astype("<f4"), rate_hz=RATE_HZ, units=units, axes=("lead",))
        dataset_to_hdf5(tmp_path / "in/h", dataset="h", species="cow", subject=subject, sensors={"ecg": ecg})
    of = BuildOptions(datasets=("h",), longest_segment_s=1.0, pack={"ecg": "int16"}, max_pack_error=0.5)
    rows = read_manifest((made := build(tmp_path / "in", tmp_path / "set", of, workers=1)).folder, made.info)
    told = {(r["recording"], r["dtype"], r["units"]) for r in rows.to_pylist()}
    assert told == {("cow_a_ds_0", "int16", "arbitrary"), ("cow_b_ds_0", "int16", "mV")}


def test_axes_that_differ_are_named_before_they_are_packed(tmp_path):
    for subject, n_axes in (("a", 3), ("b", 2)):
        acc = SensorData(values=np.zeros((300, n_axes), "<f4"), rate_hz=RATE_HZ, units="g", axes=tuple("xyz"[:n_axes]))
        dataset_to_hdf5(tmp_path / "herd", dataset="herd", species="cow", subject=subject, sensors={"acc": acc})
    with pytest.raises(RecordingError, match=r"cow_b_ds_0.hdf5: acc has axes \['x', 'y'\]"):
        build(tmp_path, tmp_path / "set", options("int16"), workers=1)
    assert not (tmp_path / "set").exists()


def test_a_set_of_the_version_before_is_read(herd, tmp_path):
    made = build(herd, tmp_path / "set", BuildOptions(datasets=("herd",), longest_segment_s=1.0), workers=1)
    info = json.loads((made.folder / "dataset.json").read_text())
    rows = pq.read_table(made.folder / "manifest.parquet").to_pylist()
    assert identity_of(rows, 1) != identity_of(rows)
    info |= {"format_version": 1, "identity": identity_of(rows, 1)}
    del info["packing"], info["options"]["pack"], info["options"]["max_pack_error"]
    (made.folder / "dataset.json").write_text(json.dumps(info))
    assert "all hashes match" in verify_shards(made.folder)
    assert "packed" not in render(summarize(made.folder))
    build(herd, made.folder, BuildOptions(datasets=("herd",), longest_segment_s=1.0), workers=1)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--pack", "int8"], "--pack int8: expected int16 or float16"),
        (["--pack", "acx=int16"], "--pack acx=int16: expected int16 or float16, alone or as <kind>=<format>"),
        (["--pack", "int16", "--max_pack_error", "0"], "--max_pack_error must lie in (0, 1)"),
    ],
)
def test_what_cannot_be_packed_is_one_line(herd, tmp_path, flags, said, capsys):
    assert_refused(capsys, ["--data_root", herd, "--output_folder", tmp_path / "out", *flags], f"error: {said}")
