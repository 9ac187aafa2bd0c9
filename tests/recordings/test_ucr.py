"""UCR and UEA: the two text forms, classes, targets, unequal lengths, missing values; ECG5000 as published."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from published_windows import windows_of

from aar_dist.base.errors import ConfigError, RecordingError
from aar_dist.recordings.contract import check_values, find_recordings, read_labels, read_samples
from aar_dist.recordings.convert import convert, main
from aar_dist.recordings.converter import Options
from aar_dist.recordings.source import open_source
from aar_dist.recordings.ucr import CONVERTER, plan
from aar_dist.recordings.ucr_files import class_name, read_file

TRAIN = {"1": 292, "2": 177, "3": 10, "4": 19, "5": 2}
TEST = {"1": 2627, "2": 1590, "3": 86, "4": 175, "5": 22}
N = 140


@pytest.fixture(scope="module")
def ecg5000(shared_data):
    """The published folder."""
    with open_source(shared_data / "ecg5000_tsv.tar.xz") as raw:
        yield raw


@pytest.fixture(scope="module")
def some_beats(ecg5000, tmp_path_factory):
    """The published lines: every 20th of the training set, every 300th of the test set."""
    folder = tmp_path_factory.mktemp("some") / "ECG5000"
    folder.mkdir()
    for part, every in (("TRAIN", 20), ("TEST", 300)):
        lines = (ecg5000 / f"ECG5000_{part}.tsv").read_text().splitlines()[::every]
        (folder / f"ECG5000_{part}.tsv").write_text("\n".join(lines))
    return folder


def converted(source: Path, out: Path, **options):
    folder, result = convert(CONVERTER, out, Options(source=source, **{"rate_hz": 140.0} | options))
    by_number = sorted(find_recordings(folder), key=lambda r: (r.source.split("_")[-1][:2] == "TE", line(r)))
    return folder, by_number, result


def line(recording) -> int:
    return int(recording.source.split()[-1])


@pytest.mark.real
def test_all_of_ecg5000_is_read(ecg5000):
    """Each published line is a recording to be made, with its class; every value is a number, every beat a z-score."""
    jobs = plan(ecg5000, Options(source=ecg5000, rate_hz=140.0))
    assert len(jobs) == 5000
    for part, counts in (("TRAIN", TRAIN), ("TEST", TEST)):
        file = read_file(ecg5000 / f"ECG5000_{part}.tsv")
        assert file.classes == ("1", "2", "3", "4", "5")
        assert Counter(label for _, label, _ in file.lines) == counts
    takes = [take for job in jobs for take in job.read()]
    values = np.stack([take.sensors["series"].values[:, 0] for take in takes])
    assert values.shape == (5000, N)
    published = np.concatenate([np.loadtxt(ecg5000 / f"ECG5000_{part}.tsv") for part in ("TRAIN", "TEST")])
    np.testing.assert_array_equal(values, published[:, 1:].astype(np.float32))
    assert [take.label[0] + 1 for take in takes] == published[:, 0].tolist()
    assert np.abs(values.mean(axis=1)).max() < 1e-6
    np.testing.assert_allclose(values.std(axis=1, ddof=1), 1, atol=1e-5)
    assert not any(take.notes for take in takes)


@pytest.mark.real
def test_beats_become_recordings_and_windows(some_beats, tmp_path):
    folder, recordings, result = converted(some_beats, tmp_path / "out", sensor="ecg")
    assert folder.name == "ECG5000"
    assert result.notes == []
    names = Counter(r.recording.rpartition("_ds_")[0] for r in recordings)
    assert names == {"unknown_train": 25, "unknown_test": 15}
    for recording in recordings:
        check_values(recording)
        (ecg,) = recording.sensors
        assert (ecg.kind, ecg.n_samples, ecg.rate_hz, ecg.units, ecg.scale) == ("ecg", N, 140.0, "arbitrary", (1.0,))
        assert (recording.subject, recording.species) == ("unknown", "unknown")
    table, batches = windows_of(folder, tmp_path / "set", 1.0, kinds=["ecg"])
    assert len(table) == len(recordings), "one window a beat"
    for recording in recordings:
        (row,) = np.flatnonzero(table.recording == recording.recording)
        assert table.classes[table.label[row]] == recording.label.classes[read_labels(recording)[0]]
    train = table.select(np.char.find(table.recording, "_train_") >= 0)
    assert len(train) == 25, "the published split can be honoured by name"
    assert all(batch.values.shape[1:] == (N, 1) and bool(batch.valid.all()) for batch in batches)


@pytest.mark.real
@pytest.mark.slow
def test_all_of_ecg5000_comes_out_as_windows(ecg5000, tmp_path):
    folder, _, _ = converted(ecg5000, tmp_path / "out", sensor="ecg")
    table, _ = windows_of(folder, tmp_path / "set", 1.0, kinds=["ecg"])
    assert Counter(table.classes[k] for k in table.label) == Counter(TRAIN) + Counter(TEST)
    train = table.select(np.char.find(table.recording, "_train_") >= 0)
    assert Counter(table.classes[k] for k in train.label) == TRAIN


@pytest.mark.real
def test_the_other_form_gives_the_same(some_beats, tmp_path):
    other = tmp_path / "ts" / "ECG5000"
    other.mkdir(parents=True)
    classes = " ".join(read_file(some_beats / "ECG5000_TRAIN.tsv").classes)
    for part in ("TRAIN", "TEST"):
        rows = [row.split("\t") for row in (some_beats / f"ECG5000_{part}.tsv").read_text().splitlines()]
        header = f"#Beats\n@problemName ECG5000\n@timestamps false\n@equalLength true\n@seriesLength {N}\n"
        body = "\n".join(",".join(values) + f":{label}" for label, *values in rows)
        text = f"{header}@classLabel true {classes}\n@data\n{body}\n"
        (other / f"ECG5000_{part}.ts").write_text(text)
    _, tsv, _ = converted(some_beats, tmp_path / "a")
    _, ts, _ = converted(other, tmp_path / "b")
    for a, b in zip(tsv, ts, strict=True):
        assert (a.recording, a.sensors, a.label) == (b.recording, b.sensors, b.label)
        np.testing.assert_array_equal(read_samples(a, "series"), read_samples(b, "series"))
        np.testing.assert_array_equal(read_labels(a), read_labels(b))


def problem(folder: Path, train: str, test: str | None = None, form: str = "tsv") -> Path:
    folder.mkdir()
    for part, text in (("TRAIN", train), ("TEST", train if test is None else test)):
        (folder / f"Made_{part}.{form}").write_text(text)
    return folder


def ts(body: str, *lines: str) -> str:
    return "\n".join([*lines, "@data", body, ""])


def test_shorter_series_and_missing_values(tmp_path, capsys):
    """Behind the end they are padding; inside they are gaps."""
    rows = "1\t5\tNaN\t7\tNaN\tNaN\n2\t1\t2\t3\t4\t5\n-1\t1\t2\t3\tNaN\tNaN\n"
    source = problem(tmp_path / "Made", rows, "2\tNaN\t1\t2\t3\t4\n")
    main(["ucr", str(source), str(tmp_path / "out"), "--rate_hz", "10"])
    told = capsys.readouterr().out
    assert "behind the end of a series: cut off, the series is shorter (2 times)" in told
    assert "missing values inside a series: kept as NaN (2 times)" in told
    recordings = {r.source: r for r in find_recordings(tmp_path / "out/Made")}
    values = {name: read_samples(r, "series")[:, 0].tolist() for name, r in recordings.items()}
    assert values["Made_TRAIN.tsv line 2"] == [1, 2, 3, 4, 5]
    assert values["Made_TRAIN.tsv line 3"] == [1, 2, 3]
    np.testing.assert_array_equal(values["Made_TRAIN.tsv line 1"], [5, np.nan, 7])
    np.testing.assert_array_equal(values["Made_TEST.tsv line 1"], [np.nan, 1, 2, 3, 4])
    assert {r.label.classes for r in recordings.values()} == {("-1", "1", "2")}


def test_several_dimensions_and_unequal_lengths(tmp_path):
    body = "1,2,3:10,20,30:walk\n4,?:40,50:run\n7,8:?,?:?"
    source = problem(tmp_path / "Made", ts(body, "@univariate false", "@classLabel true run walk"), form="ts")
    _, recordings, _ = converted(source, tmp_path / "out")
    first, second, third = recordings[:3]
    np.testing.assert_array_equal(read_samples(first, "series"), [[1, 10], [2, 20], [3, 30]])
    np.testing.assert_array_equal(read_samples(second, "series"), [[4, 40], [np.nan, 50]])
    np.testing.assert_array_equal(read_samples(third, "series"), [[7, np.nan], [8, np.nan]])
    assert first.sensors[0].axes == ("0", "1")
    assert [read_labels(r).tolist() for r in (first, second, third)] == [[1, 1, 1], [0, 0], [-1, -1]]


def test_targets_and_no_labels_at_all(tmp_path):
    source = problem(tmp_path / "a", ts("1,2:70.5\n3,4:?", "@classLabel false", "@targetLabel true"), form="ts")
    _, (first, second, *_), _ = converted(source, tmp_path / "out")
    assert first.label.classes is None
    assert read_labels(first).tolist() == [70.5, 70.5]
    assert np.isnan(read_labels(second)).all()
    source = problem(tmp_path / "b", ts("1,2\n3,4", "@classLabel false"), form="ts")
    _, recordings, _ = converted(source, tmp_path / "out")
    assert all(r.label is None for r in recordings)


def test_classes_of_one_number_and_of_both_files(tmp_path):
    assert [class_name(t) for t in ("1", "1.0", "1.0000000e+00", "-1", "0.5", "walk")] == [
        "1", "1", "1", "-1", "0.5", "walk"
    ]  # fmt: skip
    source = problem(tmp_path / "Made", "10\t1\t2\n2\t1\t3\n", "3.0\t1\t4\n")
    _, recordings, _ = converted(source, tmp_path / "out")
    assert {r.label.classes for r in recordings} == {("2", "3", "10")}


def test_identical_series_are_told_and_kept(tmp_path):
    """Results are compared by the published split; a label that differs stays too."""
    source = problem(tmp_path / "Made", "1\t1\t2\n2\t1\t3\n", "1\t5\t2\n2\t1\t2\n")
    _, recordings, result = converted(source, tmp_path / "out")
    assert result.notes == [
        "1 of 4 are byte-identical to another (Made_TEST.tsv line 2 to Made_TRAIN.tsv line 1 …): kept, as published"
    ]
    assert [read_labels(r)[0] for r in recordings] == [0, 1, 0, 1]


def refused(source: Path, out: Path, **options) -> str:
    with pytest.raises(RecordingError) as caught:
        convert(CONVERTER, out, Options(source=source, **{"rate_hz": 1.0} | options))
    assert "\n" not in str(caught.value)
    assert list(out.glob("*")) == []
    return str(caught.value)


BAD = {
    "no tab": ("1 2 3\n", "tsv", "Made_TRAIN.tsv: line 1 has no tab"),
    "empty": ("\n", "tsv", "holds no series"),
    "text": ("1\t2\tx\n", "tsv", "line 1: could not convert string to float: 'x'"),
    "infinite": ("1\t2\tinf\n", "tsv", "line 1: an infinite value 'inf'"),
    "nothing": ("1\t2\t3\n1\tNaN\tNaN\n", "tsv", "line 2: every value is missing"),
    "no data": ("@classLabel true 1 2\n1,2:1\n", "ts", "has no line @data"),
    "times": (ts("(0,1),(1,2):1", "@timeStamps true", "@classLabel true 1"), "ts", "times of their own are not read"),
    "no classes": (ts("1,2:1", "@classLabel true"), "ts", "@classLabel true names no classes"),
    "class": (ts("1,2:3", "@classLabel true 1 2"), "ts", "line 3: label '3'"),
    "lengths": (ts("1,2:1,2,3:1", "@classLabel true 1"), "ts", "its dimensions have 2 to 3 values"),
    "target": (ts("1,2:high", "@targetLabel true"), "ts", "the target is 'high', expected a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path, case):
    text, form, message = BAD[case]
    assert message in refused(problem(tmp_path / "Made", text, form=form), tmp_path / "out")


def test_bad_series_are_told_together_and_may_be_skipped(tmp_path, capsys):
    source = problem(tmp_path / "Made", "1\t1\t2\n1\t1\tx\n", "1\ty\t2\n")
    told = refused(source, tmp_path / "out")
    assert "2 of 3 files" in told
    assert "Made_TRAIN.tsv: line 2" in told
    assert "Made_TEST.tsv: line 1" in told
    main(["ucr", str(source), str(tmp_path / "out"), "--rate_hz", "1", "--skip_bad"])
    assert capsys.readouterr().out.count("left out: ") == 2


def test_neither_rate_nor_unit_is_guessed(tmp_path):
    source = problem(tmp_path / "Made", "1\t1\t2\n")
    assert "tells no sampling rate; give it with --rate_hz" in refused(source, tmp_path / "out", rate_hz=None)
    assert "unknown unit 'arbitrary' for a sensor of kind acc" in refused(source, tmp_path / "out", sensor="acc")
    _, (recording, _), _ = converted(source, tmp_path / "out", sensor="acc", units="m/s^2")
    assert recording.sensors[0].scale == pytest.approx((1 / 9.80665,))


def test_one_whole_problem_at_a_time(tmp_path):
    source = problem(tmp_path / "Made", "1\t1\t2\n")
    (source / "Made_TEST.tsv").rename(source / "Other_TEST.tsv")
    assert "holds 2 problems (Made, Other …); give the folder of one" in refused(source, tmp_path / "out")
    (source / "Other_TEST.tsv").unlink()
    assert "Made_TEST.tsv is missing; it belongs to the published set" in refused(source, tmp_path / "out")


def test_the_published_folder_is_never_replaced(tmp_path):
    source = problem(tmp_path / "Made", "1\t1\t2\n")
    before = {p.name: p.read_bytes() for p in source.iterdir()}
    with pytest.raises(ConfigError, match="Made: is SOURCE; the data set would replace the published files"):
        convert(CONVERTER, tmp_path, Options(source=source, rate_hz=1.0), overwrite=True)
    inside = problem(source / "raw", "1\t1\t2\n").rename(source / "Made")
    with pytest.raises(ConfigError, match="Made: is above SOURCE"):
        convert(CONVERTER, tmp_path, Options(source=inside, rate_hz=1.0), overwrite=True)
    assert {p.name: p.read_bytes() for p in source.iterdir() if p.is_file()} == before


def test_a_folder_that_cannot_name_a_data_set(tmp_path):
    source = problem(tmp_path / "Made (1)", "1\t1\t2\n")
    with pytest.raises(ConfigError, match=r"names the data set, but 'Made \(1\)' cannot be part of a file name"):
        convert(CONVERTER, tmp_path / "out", Options(source=source, rate_hz=1.0))
