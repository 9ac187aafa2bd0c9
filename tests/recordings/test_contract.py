"""What the reader accepts, and the one line it says to everything else."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.contract import (
    check_values,
    find_recordings,
    read_labels,
    read_recording,
    read_samples,
    scan_recordings,
)


def write_plain(path: Path, **changes) -> Path:
    """A good file by plain h5py; ``changes`` replace parts of it, None leaves a part out."""
    parts = {"acc": np.ones((100, 3), np.float32), "sr": 25.0, "units": "g", "subject": "7", "species": "cow"}
    parts |= {"label": None, "classes": ("a", "b"), "scale": None, "gyr": None, "gyr_sr": None} | changes
    with h5py.File(path, "w") as file:
        file.attrs.update({k: parts[k] for k in ("sr", "subject", "species") if parts[k] is not None})
        acc = file.create_dataset("acc", data=parts["acc"])
        acc.attrs.update({k: parts[k] for k in ("units", "scale") if parts[k] is not None})
        if parts["gyr"] is not None:
            gyr = file.create_dataset("gyr", data=parts["gyr"])
            gyr.attrs.update({"units": "deg/s"} | ({"sr": parts["gyr_sr"]} if parts["gyr_sr"] else {}))
        if parts["label"] is not None:
            label = file.create_dataset("label", data=parts["label"])
            if parts["classes"] is not None:
                label.attrs["classes"] = parts["classes"]
    return path


def test_header_samples_and_labels(tmp_path):
    values = np.arange(300, dtype=np.int16).reshape(100, 3)
    label = np.repeat(np.array([0, -1], np.int8), 50)
    path = write_plain(tmp_path / "cow_7_ds_0.hdf5", acc=values, units="m/s^2", scale=[1.0, 2.0, 4.0], label=label)
    recording = read_recording(path)
    (acc,) = recording.sensors
    assert (acc.kind, acc.rate_hz, acc.n_samples, acc.n_axes, acc.dtype) == ("acc", 25.0, 100, 3, "<i2")
    np.testing.assert_allclose(acc.scale, np.array([1.0, 2.0, 4.0]) / 9.80665)
    assert recording.duration_s == 4.0
    assert recording.dataset == tmp_path.name
    np.testing.assert_array_equal(read_samples(recording, acc, 10, 20), values[10:20])
    np.testing.assert_array_equal(read_labels(recording, 45, 55), label[45:55])


def test_a_file_of_the_first_system_reads_as_it_is(tmp_path):
    path = tmp_path / "horse_Bella_3_ds_12.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs.update(sr=50, loc="neck", species="horse")
        file["acc_x"] = np.ones(100, np.float32)
        file["label"] = np.array([b"walk"] * 60 + [b"unknown"] * 40)
    recording = read_recording(path, units={"acc": "m/s^2"})
    assert (recording.subject, recording.species, recording.location) == ("Bella_3", "horse", "neck")
    assert recording.label is not None
    assert recording.label.classes == ("walk",)
    assert read_samples(recording, "acc_x").shape == (100, 1)
    np.testing.assert_array_equal(np.unique(read_labels(recording)), [-1, 0])
    with pytest.raises(RecordingError, match=r"horse_Bella_3_ds_12.hdf5: acc_x: has no units.*--acc_units"):
        read_recording(path)


BAD_HEADERS = {
    "no rate": ({"sr": None}, "acc: has no sampling rate; set the attribute `sr`"),
    "rate 0": ({"sr": 0.0}, "`sr` is .*0.0.*expected a positive"),
    "rate nan": ({"sr": float("nan")}, "expected a positive"),
    "rate in words": ({"sr": "fast"}, "`sr` is 'fast'"),
    "no units": ({"units": None}, "acc: has no units; set the attribute `units`, or give --acc_units"),
    "unknown unit": ({"units": "furlong"}, "unknown unit 'furlong'"),
    "near unit": ({"units": "m/s^3"}, "did you mean 'm/s.2'"),
    "raw counts": ({"units": "counts"}, "raw counts without a scale"),
    "scale of 0": ({"scale": [1, 0, 1]}, "`scale` is 0"),
    "two scales for three axes": ({"scale": [1, 2]}, "`scale` is .* for each of 3 axes"),
    "no subject": ({"subject": None}, "does not say its subject"),
    "no species": ({"species": None}, "does not say its species"),
    "no samples": ({"acc": np.ones((0, 3))}, "has shape .0, 3., expected"),
    "three dimensions": ({"acc": np.ones((9, 3, 1))}, "has shape"),
    "text": ({"acc": np.array([b"1", b"2"])}, "a sensor holds integers or floats"),
    "unequal durations": ({"gyr": np.ones((90, 3))}, "acc lasts 4 s but gyr lasts 3.6 s"),
    "unequal at two rates": ({"gyr": np.ones((197, 3)), "gyr_sr": 50.0}, "acc lasts 4 s but gyr lasts 3.94 s"),
    "label too short": ({"label": np.zeros(98, np.int8)}, "acc lasts 4 s but label lasts 3.92 s"),
    "label without names": ({"label": np.zeros(100, np.int8), "classes": None}, "integers without names"),
    "float label with names": ({"label": np.zeros(100)}, "write class numbers as integers"),
    "label of two columns": ({"label": np.zeros((100, 2), np.int8)}, "expected .n_samples,."),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_bad_headers(tmp_path, case):
    changes, message = BAD_HEADERS[case]
    path = write_plain(tmp_path / "plain.hdf5", **changes)
    with pytest.raises(RecordingError, match=message) as caught:
        read_recording(path)
    assert "plain.hdf5" in str(caught.value)


def test_durations_may_differ_by_one_sample_of_the_slowest(tmp_path):
    path = write_plain(tmp_path / "plain.hdf5", gyr=np.ones((198, 3)), gyr_sr=50.0, label=np.zeros(99, np.int8))
    assert read_recording(path).duration_s == pytest.approx(3.96)


BAD_VALUES = {
    "only NaN": ({"acc": np.full((100, 3), np.nan)}, "acc: every value is NaN"),
    "infinite": ({"acc": np.full((100, 3), np.inf)}, "acc: holds an infinite value"),
    "label above": ({"label": np.repeat([0, 2], 50)}, "label: holds 2 at sample 50, outside its 2 classes"),
    "label below": ({"label": np.repeat([-2, 0], 50)}, "label: holds -2 at sample 0"),
    "infinite target": ({"label": np.full(100, np.inf), "classes": None}, "infinite target"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_bad_values(tmp_path, case):
    changes, message = BAD_VALUES[case]
    recording = read_recording(write_plain(tmp_path / "plain.hdf5", **changes))
    with pytest.raises(RecordingError, match=message):
        check_values(recording)


def test_a_file_cut_in_half(tmp_path):
    path = write_plain(tmp_path / "cut.hdf5")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RecordingError, match=r"cut.hdf5: not readable as HDF5.*cut short"):
        read_recording(path)
    path.write_bytes(b"")
    with pytest.raises(RecordingError, match="not readable"):
        read_recording(path)


def test_all_bad_recordings_are_listed_together(tmp_path):
    for k in range(12):
        write_plain(tmp_path / f"bad_{k:02d}.hdf5", units=None)
    write_plain(tmp_path / "good.hdf5")
    with pytest.raises(RecordingError, match=r"^12 of 13 recordings in .*bad_00.*; .*bad_09.*and 2 more.*--skip_bad$"):
        find_recordings(tmp_path)
    good, bad = find_recordings(tmp_path, skip_bad=True)
    assert [r.recording for r in good] == ["good"]
    assert len(bad) == 12
    assert len(find_recordings(tmp_path, {"acc": "g"})) == 13


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(RecordingError, match="no such folder"):
        find_recordings(tmp_path / "nowhere")
    with pytest.raises(RecordingError, match=r"holds no \.hdf5 recording"):
        find_recordings(tmp_path)
    with pytest.raises(RecordingError, match="no such file"):
        read_recording(tmp_path / "cow_1_ds_0.hdf5")


def test_classes_are_those_of_the_data_set(tmp_path):
    label = np.zeros(100, np.int8)
    write_plain(tmp_path / "a.hdf5", label=label)
    write_plain(tmp_path / "b.hdf5", label=label, classes=("b", "a"))
    good, bad = scan_recordings(tmp_path)
    assert [r.recording for r in good] == ["a"]
    assert re.search(r"b.hdf5: label has other `classes` than a.hdf5", str(bad[0]))


BAD_NAMES = {
    "data set with a slash": ({"dataset": "a/b"}, {}, {}, "attribute `dataset` is 'a/b' cannot be part of a file name"),
    "data set above": ({"dataset": ".."}, {}, {}, "attribute `dataset` is '..' cannot"),
    "data set with braces": ({"dataset": "{a,b}"}, {}, {}, "attribute `dataset` is '{a,b}' cannot"),
    "subject of two lines": ({"subject": "a\nb"}, {}, {}, r"attribute `subject` is 'a\nb' holds a line break"),
    "place with a bell": ({"loc": "neck\a"}, {}, {}, r"attribute `loc` is 'neck\x07' holds a line break"),
    "comma in an axis": ({}, {"axes": ["x,1", "y", "z"]}, {}, "acc: `axes`: axis 'x,1' is empty or holds a comma"),
    "empty axis": ({}, {"axes": "x,,z"}, {}, "acc: `axes`: axis '' is empty"),
    "sensors alike": ({}, {}, {"Acc": np.ones((100, 3))}, "'Acc' and 'acc' differ in upper and lower case only"),
    "sensor with a dot": ({}, {}, {"acc.x": np.ones((100, 3))}, "sensor 'acc.x' cannot be part of a file name"),
    "label in capitals": ({}, {}, {"Label": np.ones(100), "label": np.ones(100)}, "'Label' and 'label' differ"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_NAMES)
def test_names_that_cannot_be_kept(tmp_path, case):
    of_file, of_acc, more, message = BAD_NAMES[case]
    path = write_plain(tmp_path / "plain.hdf5")
    with h5py.File(path, "r+") as file:
        file.attrs.update(of_file)
        file["acc"].attrs.update(of_acc)
        for name, values in more.items():
            file[name] = values
            file[name].attrs["units"] = "g"
    with pytest.raises(RecordingError, match=r"plain\.hdf5: ") as caught:
        read_recording(path)
    assert message in str(caught.value)


def test_a_folder_that_names_the_data_set_is_named(tmp_path):
    folder = tmp_path / "a,b"
    folder.mkdir()
    path = write_plain(folder / "plain.hdf5")
    with pytest.raises(RecordingError, match=r"the folder, which names the data set, is 'a,b' cannot be part"):
        read_recording(path)


def test_names_may_be_in_any_language_and_subjects_free(tmp_path):
    path = write_plain(tmp_path / "plain.hdf5", subject="Zoë / 12, grey")
    with h5py.File(path, "r+") as file:
        file.attrs["dataset"] = "Kühe 2022-v1.2"
    recording = read_recording(path)
    assert (recording.dataset, recording.subject) == ("Kühe 2022-v1.2", "Zoë / 12, grey")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
def test_types_that_are_read(tmp_path, dtype, order):
    values = np.arange(300).reshape(100, 3).astype(order + dtype)
    recording = read_recording(write_plain(tmp_path / "plain.hdf5", acc=values))
    assert np.dtype(recording.sensors[0].dtype) == values.dtype
    np.testing.assert_array_equal(read_samples(recording, "acc"), values)


@pytest.mark.parametrize("dtype", [np.longdouble, np.complex64, np.bool_, np.dtype([("x", "f4"), ("y", "f4")])])
def test_types_that_are_not(tmp_path, dtype):
    with pytest.raises(RecordingError, match=r"plain\.hdf5: acc: holds .*float16, float32 or float64") as caught:
        read_recording(write_plain(tmp_path / "plain.hdf5", acc=np.ones((100, 3), dtype)))
    assert str(np.dtype(dtype)) in str(caught.value)
