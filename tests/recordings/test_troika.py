"""TROIKA: rows, missing ECG, whose recording it is, and the heart rate of windows, on the published files."""

import shutil
from collections import Counter

import numpy as np
import pytest
import scipy.io
from published_windows import windows_of

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.contract import check_values, read_samples
from aar_dist.recordings.convert import convert
from aar_dist.recordings.converter import Options
from aar_dist.recordings.troika import CONVERTER, read_matrix, target

pytestmark = pytest.mark.real


def published(troika, source: str) -> tuple[np.ndarray, np.ndarray]:
    """The signal and the heart rates of one published file."""
    (path,) = troika.raw.rglob(source)
    name = source.removesuffix(".mat")
    forms = (f"{name}_BPMtrace.mat", f"{name.replace('DATA', 'BPM')}.mat", f"{name.replace('TEST', 'True')}.mat")
    (trace,) = [p for form in forms if form != source for p in troika.raw.rglob(form)]
    return scipy.io.loadmat(path)["sig"], scipy.io.loadmat(trace)["BPM0"][:, 0]


def test_everything_is_there_and_nobody_twice(troika):
    assert len(troika.recordings) == 23
    assert Counter(r.source.split("_")[0] for r in troika.recordings) == {"DATA": 13, "TEST": 10}
    subjects = Counter(r.subject for r in troika.recordings)
    assert set(subjects) == {f"{i:02d}" for i in range(1, 13)} | {f"S{i:02d}" for i in range(1, 9)}
    assert {s: n for s, n in subjects.items() if n > 1} == {"S02": 2, "S04": 2, "S06": 2}
    assert {r.source for r in troika.recordings if r.subject == "S04"} == {"DATA_S04_T01.mat", "TEST_S04_T02.mat"}


def test_samples_are_those_published_and_test_files_have_no_ecg(troika):
    for recording in troika.recordings:
        check_values(recording)
        signal, _ = published(troika, recording.source)
        names = ["acc", "ppg"] if recording.source.startswith("TEST") else ["acc", "ecg", "ppg"]
        assert [s.name for s in recording.sensors] == names
        assert {s.rate_hz for s in recording.sensors} == {125.0}
        assert {s.name: s.units for s in recording.sensors}["acc"] == "g"
        rows = [read_samples(recording, name) for name in (["ecg"] if "ecg" in names else []) + ["ppg", "acc"]]
        np.testing.assert_array_equal(np.column_stack(rows).T, signal.astype(np.float32))


def test_what_is_known_of_the_units(troika):
    """No unit is published: 10 bits of 0.0078, and nearly 1 where the arm is still. ECG ends at -1024."""
    at_rest, clipped = [], 0
    for recording in troika.recordings:
        acc = read_samples(recording, "acc").astype(np.float64)
        steps = acc / 0.0078
        assert np.abs(steps - np.rint(steps)).max() < 1e-4
        assert -512 <= np.rint(steps).min() < np.rint(steps).max() <= 511
        length = np.linalg.norm(acc[: len(acc) // 125 * 125], axis=1).reshape(-1, 125)
        at_rest.append(np.median(length.mean(axis=1)[np.argsort(length.std(axis=1))[:10]]))
        if not recording.source.startswith("TEST"):
            ecg = read_samples(recording, "ecg")
            assert ecg.min() >= -1024
            clipped += int((ecg <= -1000).sum())
    assert 0.82 < min(at_rest) < max(at_rest) < 0.95
    assert clipped == 4289, "kept as published"


def test_windows_are_those_published_and_near_their_heart_rates(troika, tmp_path):
    table, batches = windows_of(troika.folder, tmp_path / "set", 8.0, hop_s=2.0, sensors=["acc", "ecg", "ppg"])
    errors = []
    for recording in troika.recordings:
        _, bpm = published(troika, recording.source)
        of = table.recording == recording.recording
        np.testing.assert_allclose(table.start_s[of], 2.0 * np.arange(len(bpm)))
        errors.append(np.abs(table.label[of] - bpm))
    assert len(table) == sum(map(len, errors)) == 3203
    everything = np.concatenate(errors)
    assert everything.mean() < 0.42
    assert np.quantile(everything, 0.99) < 2.3
    channels = np.concatenate([batch.channel.numpy() for batch in batches])[: len(table)]
    absent = (channels < 0).any(axis=1)
    tests = {r.recording for r in troika.recordings if r.source.startswith("TEST")}
    np.testing.assert_array_equal(absent, np.isin(table.recording, sorted(tests)))


def test_the_heart_rate_of_a_second_is_that_of_the_nearest_window():
    label = target(np.array([60.0, 70.0, 80.0]), 125 * 13 + 60)
    assert label.tolist()[:12] == [60.0] * 5 + [70.0] * 2 + [80.0] * 5
    assert np.isnan(label[12:]).all()
    assert len(label) == 14


def bad(troika, tmp_path, change) -> str:
    """What is said of a training and a test recording after a change to their folder."""
    source = tmp_path / "in"
    for name in ("DATA_01_TYPE01.mat", "DATA_01_TYPE01_BPMtrace.mat", "TEST_S01_T01.mat", "True_S01_T01.mat"):
        (path,) = troika.raw.rglob(name)
        target_path = source / path.relative_to(troika.raw)
        target_path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target_path)
    change(source)
    with pytest.raises(RecordingError) as caught:
        convert(CONVERTER, tmp_path / "out", Options(source=source))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").glob("*")) == []
    return str(caught.value)


def cut(source, name: str, to: int) -> None:
    (path,) = source.rglob(name)
    path.write_bytes(path.read_bytes()[:to])


def test_damaged_files_are_told_together(troika, tmp_path):
    def change(source):
        cut(source, "DATA_01_TYPE01.mat", 5000)
        next(source.rglob("True_S01_T01.mat")).unlink()

    told = bad(troika, tmp_path, change)
    assert "2 of 2 files" in told
    assert "DATA_01_TYPE01.mat: not readable as a MATLAB file" in told
    assert "True_S01_T01.mat: no such file; it belongs to the published set" in told


def test_a_trace_of_another_recording(troika, tmp_path):
    def change(source):
        shutil.copy(next(source.rglob("True_S01_T01.mat")), next(source.rglob("DATA_01_TYPE01_BPMtrace.mat")))

    assert "holds 142 heart rates, but the recording has 148 windows of 8 s every 2 s" in bad(troika, tmp_path, change)


def test_other_rows_and_other_names(troika, tmp_path):
    def change(source):
        scipy.io.savemat(next(source.rglob("TEST_S01_T01.mat")), {"sig": np.zeros((4, 2000))})
        scipy.io.savemat(next(source.rglob("DATA_01_TYPE01.mat")), {"signal": np.zeros((6, 2000))})

    told = bad(troika, tmp_path, change)
    assert "sig has 4 rows, expected 6 (ECG, 2 PPG, 3 acceleration) or 5 (without ECG)" in told
    assert "has no matrix 'sig'; it has signal" in told


def test_a_heart_rate_of_nobody(troika, tmp_path):
    def change(source):
        path = next(source.rglob("True_S01_T01.mat"))
        scipy.io.savemat(path, {"BPM0": np.zeros_like(read_matrix(path, "BPM0"))})

    assert "holds a heart rate that is not a positive number" in bad(troika, tmp_path, change)
