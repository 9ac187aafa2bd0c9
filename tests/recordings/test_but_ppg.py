"""BUT PPG: quality, heart rate and motion, marks, negative values, two forms of the signals, on the published files."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from published_windows import windows_of

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.but_ppg import ANNOTATIONS, CONVERTER, MOTION, PEOPLE, SIGNALS
from aar_dist.recordings.contract import check_values, find_recordings, read_labels, read_samples
from aar_dist.recordings.convert import convert
from aar_dist.recordings.converter import Options
from aar_dist.recordings.wfdb import read_wfdb

pytestmark = pytest.mark.real


def published(but_ppg, name: str) -> dict[str, dict[str, str]]:
    (path,) = but_ppg.raw.rglob(name)
    rows = csv.DictReader(path.open(encoding="utf-8-sig", newline=""), delimiter=" " if name == SIGNALS else ",")
    return {row["ID"]: row for row in rows}


def test_everything_is_there(but_ppg):
    signals = published(but_ppg, SIGNALS)
    assert len(but_ppg.recordings) == 48
    assert but_ppg.notes == ["112002 and 2 more: version 2: left out"]
    assert set(signals) - {r.source for r in but_ppg.recordings} == {"112002", "112080", "112096"}
    assert Counter(r.subject for r in but_ppg.recordings) == {str(i): 4 for i in range(100, 112)}
    for recording in but_ppg.recordings:
        check_values(recording)
        (ppg,) = recording.sensors
        assert (ppg.kind, ppg.rate_hz, ppg.n_samples, ppg.units) == ("ppg", 30.0, 300, "arbitrary")
        assert recording.location == "finger"
        values = read_samples(recording, "ppg")
        assert values.max() < 0, "as published"
        expected = np.array(signals[recording.source]["Signal"].split(), np.float32)
        np.testing.assert_array_equal(values[:, 0], expected)


def test_the_times_tell_another_rate_than_the_publisher(but_ppg):
    for row in published(but_ppg, SIGNALS).values():
        times = np.array(row["Time"].split(), float)
        last = times[-1] * 30
        assert last == pytest.approx(300 if row["ID"] < "112" else 299, abs=0.01)
        assert np.allclose(np.diff(times), times[-1] / 299, atol=1e-4)


def test_quality_is_that_of_the_annotations_behind_their_mark(but_ppg):
    for name in (ANNOTATIONS, PEOPLE):
        assert next(but_ppg.raw.rglob(name)).read_bytes().startswith(b"\xef\xbb\xbfID,")
    annotations = published(but_ppg, ANNOTATIONS)
    assert len(annotations) == 3888
    count = Counter()
    for recording in but_ppg.recordings:
        (number,) = set(read_labels(recording).tolist())
        assert str(number) == annotations[recording.source]["Quality"]
        count[recording.label.classes[number]] += 1
    assert count == {"good": 35, "poor": 13}


def test_motion_of_two_codes_is_a_class(but_ppg, tmp_path):
    people = published(but_ppg, PEOPLE)
    folder, _ = convert(CONVERTER, tmp_path, Options(source=but_ppg.raw, label="motion"))
    assert folder.name == "but_ppg_motion"
    count = Counter()
    for recording in find_recordings(folder):
        name = recording.label.classes[read_labels(recording)[0]]
        assert name == MOTION[people[recording.source]["Motion"]]
        count[name, people[recording.source]["Motion"]] += 1
    assert count == {("rest", "0"): 36, ("moving_and_walking", "2;3"): 12}


def test_heart_rate_is_a_target(but_ppg, tmp_path):
    annotations = published(but_ppg, ANNOTATIONS)
    folder, _ = convert(CONVERTER, tmp_path, Options(source=but_ppg.raw, label="heart_rate"))
    for recording in find_recordings(folder):
        assert recording.label.classes is None
        assert set(read_labels(recording)) == {float(annotations[recording.source]["HR"])}


def test_windows_are_the_recordings(but_ppg, tmp_path):
    table, batches = windows_of(but_ppg.folder, tmp_path / "set", 10.0, kinds=["ppg"])
    assert Counter(table.classes[k] for k in table.label) == {"good": 35, "poor": 13}
    assert len(set(table.subject)) == 12
    assert all(batch.values.shape[1:] == (300, 1) and bool(batch.valid.all()) for batch in batches)


def copied(but_ppg, folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names or (SIGNALS, ANNOTATIONS, PEOPLE):
        shutil.copy(next(but_ppg.raw.rglob(name)), folder)
    return folder


def keep_first(path: Path, recordings: int) -> None:
    """The header and some recordings of myData.csv."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: recordings + 1]))


def write_record(folder: Path, name: str, values: np.ndarray, *, rate: str = "30", zeros: int = 0) -> Path:
    """A record as version 1 has them: a signal of one sample for each sample, its value -baseline / gain."""
    (folder / name).mkdir()
    lines = [f"{name}_PPG {len(values)} {rate} 1"]
    lines += [f"{name}_PPG.dat 16 {-1e4 / v!r}(10000)/NU 16 0 {zeros} {zeros} 0 PPG" for v in values.tolist()]
    (folder / name / f"{name}_PPG.hea").write_text("\n".join(lines) + "\n")
    (folder / name / f"{name}_PPG.dat").write_bytes(np.full(len(values), zeros, "<i2").tobytes())
    return folder / name / f"{name}_PPG.hea"


def test_the_records_of_physionet_give_the_same(but_ppg, tmp_path):
    source = copied(but_ppg, tmp_path / "in", ANNOTATIONS, PEOPLE)
    for recording in but_ppg.recordings:
        write_record(source, recording.source, read_samples(recording, "ppg")[:, 0].astype(np.float64))
    write_record(source, "112001", np.full(300, 5.0))
    folder, result = convert(CONVERTER, tmp_path / "out", Options(source=source))
    assert result.notes == ["112001: version 2: left out"]
    for ours, theirs in zip(find_recordings(folder), but_ppg.recordings, strict=True):
        assert (ours.source, ours.subject, ours.sensors, ours.label) == (
            theirs.source, theirs.subject, theirs.sensors, theirs.label
        )  # fmt: skip
        np.testing.assert_array_equal(read_samples(ours, "ppg"), read_samples(theirs, "ppg"))
        np.testing.assert_array_equal(read_labels(ours), read_labels(theirs))


def refused(source: Path, out: Path) -> str:
    with pytest.raises(RecordingError) as caught:
        convert(CONVERTER, out, Options(source=source))
    assert "\n" not in str(caught.value)
    assert list(out.glob("*")) == []
    return str(caught.value)


CHANGES = {
    "quality": (ANNOTATIONS, "100001,1,83", "100001,0,83", "100001: Quality is 1 in myData.csv, 0 in the annotations"),
    "no annotation": (ANNOTATIONS, "100001,1,83\r\n", "", f"100001: is not in {ANNOTATIONS}"),
    "motion": (PEOPLE, "58,1,2;3,", "58,1,2;4,", "100004: Motion is 8 in myData.csv, 2;4 in the annotations"),
    "place": (PEOPLE, "100001,F,51,,58,1,0", "100001,F,51,,58,9,0", "Ear/finger is '9', expected one of 0, 1"),
    "times": (SIGNALS, ' 10"', ' 12"', "100001: 300 samples in 12 s; at 30 Hz they last 10 s"),
    "one sample": (SIGNALS, '"-254.1748 ', '"', "100001: 299 samples but 300 times"),
    "text": (SIGNALS, '"-254.1748 ', '"x ', "100001: Signal and Time hold other things than numbers"),
    "no ID": (SIGNALS, "\n100001 ", "\nrecord1 ", "myData.csv: line 2 is not a whole row with an ID of six digits"),
    "column": (ANNOTATIONS, "Quality", "quality", "has no column 'Quality'; it has ID, quality, HR"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_does_not_fit_is_told(but_ppg, tmp_path, case):
    name, old, new, message = CHANGES[case]
    path = copied(but_ppg, tmp_path / "in") / name
    keep_first(tmp_path / "in" / SIGNALS, 4)
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
    assert message in refused(tmp_path / "in", tmp_path / "out")


def test_a_missing_annotation_file(but_ppg, tmp_path):
    source = copied(but_ppg, tmp_path / "in", SIGNALS, PEOPLE)
    assert f"{ANNOTATIONS}: no such file; it belongs to the published set" in refused(source, tmp_path / "out")


BAD_RECORDS = {
    "rate": ({"rate": "25"}, None, "one at 30 Hz (version 1)"),
    "cut": ({}, lambda dat: dat[:-2], "has 598 bytes, its header tells 600"),
    "damaged": ({}, lambda dat: b"\x01" + dat[1:], "the samples of signal 1 do not give its checksum"),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_bad_records(but_ppg, tmp_path, case):
    told, change, message = BAD_RECORDS[case]
    source = copied(but_ppg, tmp_path / "in", ANNOTATIONS, PEOPLE)
    header = write_record(source, "100001", np.linspace(-254, -250, 300), **told)
    if change:
        dat = header.with_suffix(".dat")
        dat.write_bytes(change(dat.read_bytes()))
    assert message in refused(source, tmp_path / "out")


HEADERS = {
    "x_PPG 1 30": "does not tell signals, rate and samples",
    "x_PPG 2 30 3\nx.dat 16 1(0)/V 16 0 0 0 0 a": "tells 2 signals and describes 1",
    "x_PPG 1 30 3\nx.dat 212 1(0)/V 12 0 0 0 0 a": "not one file of format 16",
    "x_PPG 1 30 3\nx.dat 16 0/V 16 0 0 0 0 a": "not calibrated, so its unit is not known",
    "x_PPG 1 30 3\nx.dat 16 1-1/V 16 0 0 0 0 a": "could not convert string to float",
    "x_PPG 1 30 3\ny.dat 16 1(0)/V 16 0 0 0 0 a": "has 0 bytes, its header tells 6",
}


@pytest.mark.parametrize("header", HEADERS, ids=HEADERS.get)
def test_headers_that_tell_too_little(tmp_path, header):
    (tmp_path / "x.dat").write_bytes(bytes(6))
    (tmp_path / "x.hea").write_text(header)
    with pytest.raises(RecordingError, match=r"x\.hea|y\.dat") as caught:
        read_wfdb(tmp_path / "x.hea")
    assert HEADERS[header] in str(caught.value)


def test_several_signals_of_a_record(tmp_path):
    stored = np.array([[1, -2], [3, 4]], "<i2")
    (tmp_path / "x.dat").write_bytes(stored.tobytes())
    (tmp_path / "x.hea").write_text(
        "# a remark\nx 2 125/1 2\nx.dat 16 2(1)/mV 16 5 1 4 0 a\nx.dat 16 4/mV 16 8 -2 2 0 b\n"
    )
    values, rate_hz = read_wfdb(tmp_path / "x.hea")
    np.testing.assert_allclose(values, (stored - [1, 8]) / [2, 4])
    assert rate_hz == 125
