"""MotionSense: what acceleration is, the running number, the trial that is there twice, on the published files."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from published_windows import windows_of

from aar_dist.base.errors import RecordingError
from aar_dist.evaluation.audit import find_shared
from aar_dist.evaluation.tracks import tracks_of_recordings
from aar_dist.recordings.columns import read_csv
from aar_dist.recordings.contract import check_values, find_recordings, read_labels, read_samples
from aar_dist.recordings.convert import CONVERTERS, convert
from aar_dist.recordings.converter import Options
from aar_dist.recordings.motionsense import ACTIVITIES, CONVERTER, PEOPLE, read_people

pytestmark = pytest.mark.real
YAML = Path(__file__).parents[2] / "configs/convert/motionsense.yaml"
PUBLISHED_ROWS = 1_412_865


def copied(motionsense, folder: Path, *names: str) -> Path:
    """Some of the published files, in their layout."""
    for name in (*names, f"../{PEOPLE}"):
        (path,) = motionsense.raw.rglob(name.removeprefix("../"))
        target = folder / "A_DeviceMotion_data" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def test_everything_is_there_once(motionsense):
    first, second = (next(motionsense.raw.rglob(f"sit_{trial}/sub_1.csv")).read_bytes() for trial in (5, 13))
    assert first == second
    assert motionsense.notes == ["sit_13/sub_1.csv is byte-identical to sit_5/sub_1.csv: left out"]
    assert len(motionsense.recordings) == 359, "360 trials, one of them twice"
    rows = sum(r.sensors[0].n_samples for r in motionsense.recordings)
    assert rows + first.count(b"\n") - 1 == PUBLISHED_ROWS
    for recording in motionsense.recordings:
        check_values(recording)
        told = {s.name: (s.kind, s.units, s.rate_hz) for s in recording.sensors}
        assert told == {"acc": ("acc", "g", 50.0), "gravity": ("other", "g", 50.0), "gyr": ("gyr", "rad/s", 50.0)}
        activity, person = recording.source.removesuffix(".csv").split("/sub_")
        assert recording.subject == person
        assert set(read_labels(recording)) == {recording.label.classes.index(ACTIVITIES[activity[:3]])}
    assert Counter(Counter(r.subject for r in motionsense.recordings).values()) == {15: 23, 14: 1}


def test_acceleration_is_what_an_accelerometer_measures(motionsense):
    (path,) = motionsense.raw.rglob("ups_12/sub_7.csv")
    (recording,) = motionsense.of("ups_12/sub_7.csv")
    columns = read_csv(path)
    acc, gravity = read_samples(recording, "acc"), read_samples(recording, "gravity")
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(gravity[:, axis], columns[f"gravity.{name}"].astype(np.float32))
        np.testing.assert_allclose(acc[:, axis] - gravity[:, axis], columns[f"userAcceleration.{name}"], atol=1e-6)
    for recording in motionsense.recordings:
        if recording.source.startswith(("sit", "std")):
            assert np.median(np.linalg.norm(read_samples(recording, "acc"), axis=1)) == pytest.approx(1.0, abs=0.02)


def test_the_table_of_people_begins_with_a_mark(motionsense):
    (path,) = motionsense.raw.rglob(PEOPLE)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfcode")
    assert read_people(motionsense.raw) == {r.subject for r in motionsense.recordings}
    assert len(read_people(motionsense.raw)) == 24


def test_windows_of_every_activity_come_out(motionsense, tmp_path):
    table, batches = windows_of(motionsense.folder, tmp_path / "set", 10.0)
    whole = Counter(r.label.classes[read_labels(r, 0, 1)[0]] for r in motionsense.recordings for _ in range(fits(r)))
    assert Counter(table.classes[k] for k in table.label) == whole
    assert len(set(table.subject)) == 24
    assert all(batch.values.shape[1:] == (500, 3) and bool(batch.valid.all()) for batch in batches)


def fits(recording) -> int:
    """Windows of 10 s, one behind the other."""
    return recording.sensors[0].n_samples // 500


def test_a_missing_row_is_a_gap(motionsense, tmp_path):
    source = copied(motionsense, tmp_path / "in", "std_14/sub_3.csv")
    path = source / "A_DeviceMotion_data/std_14/sub_3.csv"
    lines = path.read_text().splitlines()
    assert lines[0].startswith(","), "the running number has no name"
    path.write_text("\n".join(lines[:501] + lines[503:]))
    folder, _ = convert(CONVERTER, tmp_path / "out", Options(source=source))
    assert [r.sensors[0].n_samples for r in find_recordings(folder)] == [500, len(lines) - 1 - 502]


def test_twins_are_kept_when_asked_and_other_forms_left(motionsense, tmp_path):
    source = copied(motionsense, tmp_path / "in", "sit_5/sub_1.csv", "sit_13/sub_1.csv")
    other = source / "B_Accelerometer_data/sit_5"
    other.mkdir(parents=True)
    (other / "sub_1.csv").write_text(",x,y,z\n0,1,1,1\n")
    folder, result = convert(CONVERTER, tmp_path / "out", Options(source=source), keep_duplicates=True)
    assert [r.source for r in result.recordings] == ["sit_5/sub_1.csv", "sit_13/sub_1.csv"]
    (shared,) = find_shared(tracks_of_recordings(find_recordings(folder)))
    assert {track.name for track in (shared.first, shared.second)} == {"sit_5/sub_1.csv", "sit_13/sub_1.csv"}
    assert shared.first.subject == shared.second.subject == "motionsense/1", "a split by person does not leak it"


def test_bad_files_are_told_together(motionsense, tmp_path):
    source = copied(motionsense, tmp_path / "in", "std_14/sub_3.csv")
    path = source / "A_DeviceMotion_data/std_14/sub_3.csv"
    for odd in ("run_1/sub_3.csv", "std_14/sub_25.csv"):
        (path.parents[1] / odd).parent.mkdir(exist_ok=True)
        shutil.copy(path, path.parents[1] / odd)
    with pytest.raises(RecordingError) as caught:
        convert(CONVERTER, tmp_path / "out", Options(source=source))
    assert "2 of 3 files" in str(caught.value)
    assert "activity 'run' of the folder is none of dws, ups" in str(caught.value)
    assert f"person 25 is not in {PEOPLE}" in str(caught.value)
    assert list((tmp_path / "out").glob("*")) == []


def test_the_example_of_a_table_reads_the_same(motionsense, tmp_path):
    """configs/convert/motionsense.yaml: the same rows and labels, acceleration without gravity."""
    source = copied(motionsense, tmp_path / "in", "dws_1/sub_9.csv")
    folder, _ = convert(CONVERTERS["table"], tmp_path / "out", Options(source=source, yaml=YAML))
    (table,), (ours,) = find_recordings(folder), motionsense.of("dws_1/sub_9.csv")
    assert (table.subject, table.label.classes, table.location) == (ours.subject, ours.label.classes, ours.location)
    np.testing.assert_array_equal(read_labels(table), read_labels(ours))
    np.testing.assert_array_equal(read_samples(table, "gyr"), read_samples(ours, "gyr"))
    without = read_samples(ours, "acc") - read_samples(ours, "gravity")
    np.testing.assert_allclose(read_samples(table, "acc"), without, atol=1e-6)
