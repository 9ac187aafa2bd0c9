"""What is written comes back, cut at its gaps, the same bytes every time, and never half."""

import errno
import os

import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aar_dist.base.errors import RecordingError, StorageError
from aar_dist.recordings.contract import check_values, read_labels, read_recording, read_samples
from aar_dist.recordings.write import SensorColumns, SensorData, dataset_to_hdf5, encode_labels

ONE = {"dataset": "herd", "species": "cow", "subject": "7"}
ACC = SensorData(values=np.ones((100, 3), np.float32), rate_hz=25.0, units="g")


def sensor(n: int, rate_hz: float = 25.0) -> SensorData:
    return SensorData(values=np.arange(3 * n, dtype=np.float32).reshape(n, 3), rate_hz=rate_hz, units="g")


@settings(deadline=None, max_examples=40)
@given(
    data=st.data(),
    dtype=st.sampled_from([np.int8, np.int16, np.int32, np.float32, np.float64]),
    n=st.integers(1, 50),
    axes=st.integers(1, 4),
)
def test_samples_come_back_as_they_were(tmp_path_factory, data, dtype, n, axes):
    is_float = np.issubdtype(dtype, np.floating)
    width = np.dtype(dtype).itemsize * 8
    elements = st.floats(-100, 100, width=width) if is_float else st.integers(-100, 100)
    values = data.draw(arrays(dtype, (n, axes), elements=elements))
    label = data.draw(arrays(np.int16, n, elements=st.integers(-1, 1)))
    scale = data.draw(st.lists(st.floats(0.01, 10), min_size=axes, max_size=axes))
    acc = SensorData(values=values, rate_hz=12.5, units="m/s^2", scale=scale)
    (path,) = dataset_to_hdf5(
        tmp_path_factory.mktemp("out"), **ONE, sensors={"acc": acc}, label=label, classes=("a", "b"), location="neck"
    )
    recording = read_recording(path)
    check_values(recording)
    assert recording.location == "neck"
    assert recording.sensors[0].dtype == np.dtype(dtype).str
    np.testing.assert_allclose(np.array(recording.sensors[0].scale) * 9.80665, scale)
    np.testing.assert_array_equal(read_samples(recording, "acc"), values)
    np.testing.assert_array_equal(read_labels(recording), label)


@settings(deadline=None, max_examples=40)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), pause_s=st.floats(1, 1000))
def test_each_stretch_without_a_gap_is_a_recording(tmp_path_factory, lengths, pause_s):
    if sum(lengths) < 2 * len(lengths) and len(lengths) > 1:
        lengths = [n + 1 for n in lengths]
    steps = np.concatenate([np.r_[pause_s, np.full(n - 1, 0.04)] for n in lengths])
    all_acc, all_gyr = sensor(sum(lengths)), sensor(2 * sum(lengths), 50.0)
    paths = dataset_to_hdf5(
        tmp_path_factory.mktemp("out"),
        **ONE,
        sensors={"acc": all_acc, "gyr": SensorData(values=all_gyr.values, rate_hz=50.0, units="rad/s")},
        label=np.arange(sum(lengths)) % 2,
        classes=("a", "b"),
        timestamps_s=np.cumsum(steps),
        start_time="2024-05-13T14:44:00",
        first_index=3,
    )
    assert [p.name for p in paths] == [f"cow_7_ds_{3 + k}.hdf5" for k in range(len(lengths))]
    recordings = [read_recording(p) for p in paths]
    assert [r.sensors[0].n_samples for r in recordings] == lengths
    np.testing.assert_array_equal(np.concatenate([read_samples(r, "acc") for r in recordings]), all_acc.values)
    np.testing.assert_array_equal(np.concatenate([read_samples(r, "gyr") for r in recordings]), all_gyr.values)
    np.testing.assert_array_equal(np.concatenate([read_labels(r) for r in recordings]), np.arange(sum(lengths)) % 2)


def test_a_stretch_after_a_gap_has_its_own_start_time(tmp_path):
    times = np.r_[np.arange(50) * 0.04, 100 + np.arange(50) * 0.04]
    start = "2024-05-13T14:44:00"
    paths = dataset_to_hdf5(tmp_path, **ONE, sensors={"acc": ACC}, timestamps_s=times, start_time=start)
    assert [read_recording(p).start_time for p in paths] == [start, "2024-05-13T14:45:40"]


@pytest.mark.parametrize("kind", [dict, pa.table])
def test_from_a_frame(tmp_path, kind):
    columns = {"t": np.arange(100) / 25, "x": np.arange(100.0), "y": np.ones(100), "what": ["eat", ""] * 50}
    (path,) = dataset_to_hdf5(
        tmp_path,
        **ONE,
        frame=kind(columns),
        sensors={"acc": SensorColumns(columns=("x", "y"), rate_hz=25, units="g")},
        timestamps_s="t",
        label="what",
        classes=("eat",),
    )
    recording = read_recording(path)
    assert recording.sensors[0].axes == ("x", "y")
    np.testing.assert_array_equal(read_samples(recording, "acc")[:, 0], columns["x"])
    np.testing.assert_array_equal(read_labels(recording), [0, -1] * 50)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    kwargs = ONE | {"sensors": {"acc": ACC}, "label": np.zeros(100, int), "classes": ("a",)}
    (one,), (two,) = dataset_to_hdf5(tmp_path / "1", **kwargs), dataset_to_hdf5(tmp_path / "2", **kwargs)
    assert one.read_bytes() == two.read_bytes()


LONG_GYR = SensorData(values=np.ones((120, 3)), rate_hz=25, units="rad/s")
BAD = {
    "gyr longer": ({"sensors": {"acc": ACC, "gyr": LONG_GYR}}, "gyr lasts 4.8 s but acc lasts 4 s"),
    "label shorter": ({"label": np.zeros(90, int), "classes": ("a",)}, "label lasts 3.6 s"),
    "label outside": ({"label": np.full(100, 5), "classes": ("a",)}, "holds 5 at sample 0, outside its 1 classes"),
    "label far outside": ({"label": np.full(100, 2**17), "classes": ("a",)}, "outside its 1 classes"),
    "label misspelt": ({"label": ["aa"] * 100, "classes": ("a",)}, "label 'aa' .100 samples. is none of a"),
    "counts": ({"sensors": {"acc": SensorData(values=np.ones((9, 3)), rate_hz=25, units="counts")}}, "without a scale"),
    "species": ({"species": "Bos taurus"}, "species 'Bos taurus' cannot"),
    "subject": ({"subject": "a/b"}, "subject 'a/b' cannot"),
    "no sensor": ({"sensors": {}}, "no sensors given"),
    "timestamps": ({"timestamps_s": np.arange(99) / 25}, "99 timestamps for 100 samples"),
    "timestamps back": ({"timestamps_s": np.r_[np.arange(99) / 25, 0]}, "go back after row 98"),
    "no timestamp": ({"timestamps_s": np.r_[np.arange(99) / 25, np.nan]}, "row 99 has no timestamp"),
    "timestamps of 5 Hz": ({"timestamps_s": np.arange(100) / 5}, "99 of 99 steps are longer"),
    "timestamps of 50 Hz": ({"timestamps_s": np.arange(100) / 50}, "span 1.98 s, but the samples last 3.96 s"),
    "start time": ({"start_time": "13.5.2024"}, "`start_time` is '13.5.2024', expected ISO 8601"),
    "last stretch all NaN": (
        {
            "sensors": {"acc": SensorData(values=np.r_[np.ones(50), np.full(50, np.nan)], rate_hz=25, units="g")},
            "timestamps_s": np.r_[np.arange(50), 900 + np.arange(50)] / 25,
        },
        "every value is NaN",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_nothing_is_left_of_what_breaks_the_contract(tmp_path, case):
    changes, message = BAD[case]
    with pytest.raises(RecordingError, match=message):
        dataset_to_hdf5(tmp_path, **(ONE | {"sensors": {"acc": ACC}} | changes))
    assert os.listdir(tmp_path) == []


def test_labels_by_name():
    numbers = encode_labels(["b", "", "a", "NA"], ("a", "b"), unlabelled=("", "NA"))
    np.testing.assert_array_equal(numbers, [1, -1, 0, -1])


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    whole = h5py.File.create_dataset

    def fill(file, name, **kwargs):
        if name == "label":
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(file, name, **kwargs)

    monkeypatch.setattr(h5py.File, "create_dataset", fill)
    with pytest.raises(StorageError, match=r"cow_7_ds_0\.hdf5: the disk is full"):
        dataset_to_hdf5(tmp_path, **ONE, sensors={"acc": ACC}, label=np.zeros(100, int), classes=("a",))
    assert os.listdir(tmp_path) == []
