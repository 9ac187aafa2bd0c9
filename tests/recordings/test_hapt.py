"""HAPT: bounds of the labels, repeated rows, people, on the published files."""

from collections import Counter

import numpy as np
import pytest

from aar_dist.base.errors import RecordingError
from aar_dist.recordings.contract import check_values, read_labels, read_samples
from aar_dist.recordings.hapt import CLASSES, label_samples, read_numbers, read_published_labels

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def spans(hapt):
    (path,) = hapt.raw.rglob("labels.txt")
    return read_published_labels(path)


def test_everything_is_there(hapt):
    assert len(hapt.recordings) == 61
    for recording in hapt.recordings:
        check_values(recording)
        assert recording.label.classes == CLASSES
        assert {s.name: (s.rate_hz, s.units) for s in recording.sensors} == {"acc": (50.0, "g"), "gyr": (50.0, "rad/s")}
        assert f"user{recording.subject}" in recording.source
    assert sum(r.duration_s for r in hapt.recordings) / 60 == pytest.approx(374, abs=1)
    assert Counter(Counter(r.subject for r in hapt.recordings).values()) == {2: 29, 3: 1}
    assert Counter(r.subject for r in hapt.recordings)["10"] == 3
    (names,) = hapt.raw.rglob("activity_labels.txt")
    assert [line.split()[1] for line in names.read_text().splitlines()] == list(CLASSES)


def test_windows_inside_the_labels_are_those_published(hapt, spans):
    """128 samples every 64 inside each label: 10,929, and as many for each person and class as published."""
    ours = Counter()
    for (_, user), segments in spans.items():
        for number, first, end in segments:
            ours[user, number + 1] += max(0, (end - first - 128) // 64 + 1)
    assert sum(len(s) for s in spans.values()) == 1214
    assert sum(ours.values()) == 10929
    theirs = Counter()
    for part in ("Train", "Test"):
        (users,), (classes,) = (hapt.raw.rglob(f"{part}/{name}_{part.lower()}.txt") for name in ("subject_id", "y"))
        theirs.update(zip(*(read_numbers(p, 1)[:, 0].astype(int).tolist() for p in (users, classes)), strict=True))
    assert {k: n for k, n in ours.items() if n} == theirs


def test_samples_inside_the_bounds_carry_the_label(hapt, spans):
    unlabelled = total = 0
    for recording in hapt.recordings:
        label = read_labels(recording)
        key = tuple(int(part[-2:]) for part in recording.source.removesuffix(".txt").split("_")[1:])
        for number, first, end in spans[key]:
            assert (label[first:end] == number).all()
        assert (label >= 0).sum() == sum(end - first for _, first, end in spans[key])
        unlabelled, total = unlabelled + (label < 0).sum(), total + len(label)
    assert unlabelled / total == pytest.approx(0.27, abs=0.005)


def test_repeated_rows_are_kept_as_published(hapt):
    repeated = total = 0
    for recording in hapt.recordings:
        acc = read_samples(recording, "acc")
        repeated, total = repeated + (acc[1:] == acc[:-1]).all(axis=1).sum(), total + len(acc) - 1
    assert repeated / total == pytest.approx(0.06, abs=0.01)
    (path,) = hapt.raw.rglob("acc_exp01_user01.txt")
    np.testing.assert_array_equal(read_samples(hapt.of(path.name)[0], "acc"), read_numbers(path, 3).astype(np.float32))


def test_bounds_outside_and_contradictions():
    with pytest.raises(RecordingError, match="a label runs from sample 5 to 11, the recording has 10"):
        label_samples([(0, 4, 11)], 10, "here")
    np.testing.assert_array_equal(
        label_samples([(0, 0, 4), (1, 3, 6), (1, 5, 7)], 8, "here"), [0, 0, 0, -1, 1, 1, 1, -1]
    )
