"""Every fault of the cattle data, on the published files."""

import csv
from datetime import datetime

import numpy as np
import pyarrow.csv
import pytest

from aar_dist.recordings.audit import find_duplicates_and_overlaps
from aar_dist.recordings.contract import check_values, read_labels, read_samples
from aar_dist.recordings.cow_walking import CLASSES

pytestmark = pytest.mark.real
CONTAINED = {  # number: the file that holds the same samples, the samples, whether the labels differ
    62: (61, 51, True),
    103: (106, 51, True),
    104: (106, 81, True),
    105: (106, 51, True),
    278: (283, 91, False),
    246: (243, 271, False),
    289: (271, 111, False),
}


def number(recording) -> int:
    return int(recording.source.split("_")[0])


def published(cattle, n: int):
    (path,) = cattle.raw.rglob(f"{n}_*.csv")
    return path, pyarrow.csv.read_csv(path)


def vectors(table, prefix: str) -> np.ndarray:
    return np.column_stack([table[f"{prefix}{axis}"].to_numpy() for axis in "XYZ"]).astype(float)


def test_everything_else_is_there(cattle, shared_data):
    rows = {r["file"]: int(r["rows"]) for r in csv.DictReader((shared_data / "cow_walking_index.csv").open())}
    left_out = {291, *CONTAINED}
    assert len(rows) == 439
    expected = {f: n for f, n in rows.items() if int(f.split("_")[0]) not in left_out}
    assert {r.source: r.sensors[0].n_samples for r in cattle.recordings} == expected
    for recording in cattle.recordings:
        check_values(recording)
        assert recording.label.classes == CLASSES
        assert {s.name: (s.rate_hz, s.kind) for s in recording.sensors} == {
            "acc": (10.0, "acc"),
            "gyr": (10.0, "gyr"),
            "mag": (10.0, "mag"),
        }
        assert recording.subject == recording.source.split("_")[2]


def test_byte_identical_files_are_kept_once(cattle):
    assert published(cattle, 290)[0].read_bytes() == published(cattle, 291)[0].read_bytes()
    assert any(n.startswith("291_Walking") and "byte-identical to 290_Walking" in n for n in cattle.notes)


@pytest.mark.parametrize("inner", CONTAINED)
def test_overlaps_are_kept_once_and_conflicts_unlabelled(cattle, inner):
    outer, n, conflict = CONTAINED[inner]
    (note,) = [x for x in cattle.notes if x.startswith(f"{inner}_")]
    assert f" with {outer}_" in note
    assert "left out" in note
    assert ("now unlabelled" in note) == conflict
    (kept,) = [r for r in cattle.recordings if number(r) == outer]
    (_, outside), (_, inside) = published(cattle, outer), published(cattle, inner)
    start = outside["Time"].to_pylist().index(inside["Time"][0].as_py())
    np.testing.assert_array_equal(
        read_samples(kept, "acc", start, start + n), vectors(inside, "BNO055_A").astype(np.float32)
    )
    label = read_labels(kept)
    assert (label[start : start + n] == -1).all() == conflict
    assert label[-1] == CLASSES.index(kept.source.split("_")[1])


def test_nothing_is_recorded_twice_any_more(cattle):
    assert find_duplicates_and_overlaps(cattle.recordings) == []


def test_neighbours_may_share_one_boundary_sample(cattle, shared_data):
    rows = list(csv.DictReader((shared_data / "cow_walking_index.csv").open()))
    pairs = [(a["file"], b["file"]) for a in rows for b in rows if (a["cow"], a["end"]) == (b["cow"], b["start"])]
    assert len(pairs) == 76
    kept = {r.source: r for r in cattle.recordings}
    both = [(kept[a], kept[b]) for a, b in pairs if a in kept and b in kept]
    assert len(both) == 74
    for first, second in both:
        np.testing.assert_array_equal(read_samples(first, "acc")[-1], read_samples(second, "acc")[0])


def test_the_start_is_that_of_the_data(cattle):
    (recording,) = cattle.of("418_Resting_1219_20241021_125730.csv")
    assert recording.start_time.startswith("2024-10-21T13:00:00")
    wrong = [
        r.source for r in cattle.recordings
        if datetime.fromisoformat(r.start_time).strftime("%Y%m%d_%H%M%S") not in r.source
    ]  # fmt: skip
    assert wrong == [recording.source]


def test_the_label_is_in_the_file_name_not_in_the_folder(cattle):
    in_others = {p.name for p in cattle.raw.rglob("Others/*.csv")}
    classes = {CLASSES[read_labels(r)[0]] for r in cattle.recordings if r.source in in_others}
    assert classes == {
        "Drinking", "Licking", "LyingDown", "Pitching", "Rising", "Scratching", "Shaking", "Standing", "Trotting"
    }  # fmt: skip


def test_the_shortest_file_and_cows_that_never_rest(cattle):
    assert min(r.sensors[0].n_samples for r in cattle.recordings) == 31
    resting = {r.subject for r in cattle.recordings if (read_labels(r) == CLASSES.index("Resting")).any()}
    assert {"4119", "6019"}.isdisjoint(resting)
    assert len({r.subject for r in cattle.recordings}) == 10


def test_the_accelerometer_reads_gravity_at_rest_in_every_file(cattle):
    for recording in cattle.recordings:
        acc = read_samples(recording, "acc") * recording.sensors[0].scale
        if "Shaking" not in recording.source:
            assert 0.9 < np.median(np.linalg.norm(acc, axis=1)) < 1.1, recording.source


def test_why_the_other_accelerometer_is_left_out(cattle):
    off = []
    for path in cattle.raw.rglob("*_1319_20240517_*.csv"):
        acc = np.median(np.linalg.norm(vectors(pyarrow.csv.read_csv(path), "MPU9250_A"), axis=1)) / 9.80665
        off.append(acc > 7)
    assert sum(off) == 17


def test_why_the_other_gyroscope_is_left_out(cattle):
    """The turn of the published quaternion is seen by the MPU9250, and not by what is called the BNO055's gyroscope."""
    agreement = []
    for n in (101, 253, 263, 142, 395):
        _, table = published(cattle, n)
        q = np.column_stack([table[f"BNO055_Q{i}"].to_numpy() for i in range(4)]).astype(float)
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        turn = 2 * np.arccos(np.clip(np.abs((q[1:] * q[:-1]).sum(axis=1)), 0, 1))
        speed = [np.linalg.norm(vectors(table, prefix), axis=1)[1:] for prefix in ("MPU9250_G", "BNO055_G")]
        agreement.append([np.corrcoef(turn, s)[0, 1] for s in speed])
    assert np.min(agreement, axis=0)[0] > 0.5
    assert np.max(np.abs(agreement), axis=0)[1] < 0.3


def test_raw_counts_are_left_out(cattle):
    counts = {"BNO055_M", "BNO055_Q"}
    _, table = published(cattle, 101)
    assert all(str(table[c].type) == "int64" for c in table.column_names if c[:8] in counts)
    assert {s.units for r in cattle.recordings for s in r.sensors} == {"m/s^2", "deg/s", "uT"}
