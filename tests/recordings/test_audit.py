"""What is recorded twice is found, and kept once."""

from pathlib import Path

import numpy as np
import pytest

from aar_dist.recordings.audit import find_duplicates_and_overlaps
from aar_dist.recordings.contract import check_values, find_recordings, read_labels, read_recording, read_samples
from aar_dist.recordings.once import keep_once
from aar_dist.recordings.write import SensorData, dataset_to_hdf5

SESSION = np.random.default_rng(1).normal(size=(1000, 3)).astype(np.float32)
CLASSES = ("a", "b")


def cut(folder: Path, k: int, start: int, stop: int, label: int = 0, *, values=SESSION, subject="1", location=None):
    """Samples [start, stop) of a session at 10 Hz as a recording with a gyroscope at 20 Hz."""
    (path,) = dataset_to_hdf5(
        folder,
        dataset="herd",
        species="cow",
        subject=subject,
        sensors={
            "acc": SensorData(values=values[start:stop], rate_hz=10, units="g"),
            "gyr": SensorData(values=np.repeat(values[start:stop], 2, axis=0), rate_hz=20, units="rad/s"),
        },
        label=np.full(stop - start, label),
        classes=CLASSES,
        location=location,
        start_time=f"2024-05-13T14:{start // 600:02d}:{start % 600 / 10:04.1f}00000",
        source=f"{k}.csv",
        first_index=k,
    )
    return read_recording(path)


def test_a_twin_is_found_wherever_it_is(tmp_path):
    one, two = cut(tmp_path, 0, 0, 100), cut(tmp_path, 0, 0, 100, subject="2")
    (shared,) = find_duplicates_and_overlaps([one, two])
    assert (shared.first, shared.second, shared.n, shared.identical) == (one, two, 100, True)
    kept, notes = keep_once([one, two])
    assert kept == [one]
    assert not two.path.exists()
    assert "byte-identical" in notes[0]


def test_twins_of_two_labels_lose_them(tmp_path):
    kept, notes = keep_once([cut(tmp_path, 0, 0, 100, 0), cut(tmp_path, 1, 0, 100, 1)])
    assert set(read_labels(kept[0])) == {-1}
    assert "100 samples of 0.csv labelled differently there: now unlabelled" in notes[0]


def test_an_overlap_is_kept_in_the_first(tmp_path):
    first, second = cut(tmp_path, 0, 0, 100, 0), cut(tmp_path, 1, 60, 200, 1)
    (shared,) = find_duplicates_and_overlaps([second, first])
    assert (shared.first, shared.first_start, shared.n, shared.identical) == (first, 60, 40, True)
    assert shared.duration_s == 4.0
    kept, notes = keep_once([first, second])
    assert "1.csv shares 4 s with 0.csv: kept there only; 40 samples" in notes[0]
    assert find_duplicates_and_overlaps(kept) == []
    np.testing.assert_array_equal(np.concatenate([read_samples(r, "acc") for r in kept]), SESSION[:200])
    np.testing.assert_array_equal(
        np.concatenate([read_samples(r, "gyr") for r in kept]), np.repeat(SESSION[:200], 2, 0)
    )
    np.testing.assert_array_equal(np.concatenate([read_labels(r) for r in kept]), np.repeat([0, -1, 1], [60, 40, 100]))
    assert kept[1].start_time == "2024-05-13T14:00:10"
    assert (kept[1].source, kept[1].label.classes) == ("1.csv", CLASSES)
    for recording in kept:
        check_values(recording)


def test_a_chain_of_overlaps_is_kept_once(tmp_path):
    bounds = [(0, 100), (50, 150), (120, 300), (140, 160), (0, 40)]
    kept, notes = keep_once([cut(tmp_path, k, *b) for k, b in enumerate(bounds)])
    assert [r.source for r in kept] == ["0.csv", "1.csv", "2.csv"]
    np.testing.assert_array_equal(np.concatenate([read_samples(r, "acc") for r in kept]), SESSION[:300])
    assert len(notes) >= 4
    assert find_recordings(tmp_path) == kept


def test_what_only_touches_is_left_alone(tmp_path):
    recordings = [cut(tmp_path, 0, 0, 100), cut(tmp_path, 1, 99, 200, 1), cut(tmp_path, 2, 200, 300)]
    assert find_duplicates_and_overlaps(recordings) == []
    assert keep_once(recordings) == (recordings, [])


@pytest.mark.parametrize("other", [{"subject": "2"}, {"location": "leg"}])
def test_other_animals_and_other_places_do_not_overlap(tmp_path, other):
    recordings = [cut(tmp_path, 0, 0, 100), cut(tmp_path, 1, 50, 200, **other)]
    assert find_duplicates_and_overlaps(recordings) == []


def test_two_devices_at_the_same_time_are_told_and_kept(tmp_path):
    recordings = [cut(tmp_path, 0, 0, 100), cut(tmp_path, 1, 50, 200, values=SESSION + 1)]
    (shared,) = find_duplicates_and_overlaps(recordings)
    assert not shared.identical
    kept, notes = keep_once(recordings)
    assert kept == recordings
    assert notes == ["1.csv shares 5 s with 0.csv, with other samples: both kept"]
