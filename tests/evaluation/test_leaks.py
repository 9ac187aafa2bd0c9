"""What is twice is found wherever it stands, and told if it stands on two sides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.audit import NAME, SAMPLES, TIME, audited, find_shared, leaks
from aar_dist.evaluation.audit_command import main
from aar_dist.evaluation.fingerprints import SHORTEST, anchors, find_copies
from aar_dist.evaluation.folds import make_folds
from aar_dist.evaluation.tracks import Track, tracks_of_recordings, tracks_of_shards
from aar_dist.recordings.contract import find_recordings
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.training.finetuning.folds import keep_folds

RNG = np.random.default_rng(5)
START = np.datetime64("2024-05-13T14:00:00.000")


def track(values, name="r", *, subject=None, sensor="acc", rate_hz=10.0) -> Track:
    return Track("d", subject or f"d/{name}", name, sensor, rate_hz, len(values), None, lambda a, b: values[a:b], name)


def noise(n: int, dtype="<f4"):
    return (RNG.normal(size=(n, 3)) * 1000).astype(dtype)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(SHORTEST, 300),
    first=st.integers(0, 400),
    second=st.integers(0, 400),
    dtype=st.sampled_from(["<f4", "<i2", "<f8"]),
)
def test_a_copy_is_found_wherever_it_stands(n, first, second, dtype):
    a, b = noise(1000, dtype), noise(900, dtype)
    b[second : second + n] = a[first : first + n]
    (copy,) = find_copies([track(a, "a"), track(b, "b"), track(noise(500, dtype), "c")])
    assert (copy.first.name, copy.second.name) == ("a", "b")
    assert (copy.first_start, copy.second_start, copy.n) == (first, second, n)


def test_a_copy_that_begins_with_a_long_rest_is_one():
    same = np.concatenate([np.zeros((6000, 3), "<f4"), noise(300)])
    (copy,) = find_copies([track(same, "a"), track(same.copy(), "b")])
    assert copy.n == 6300


def test_two_shifts_of_one_pair_are_two_copies():
    a, b = noise(1000), noise(1000)
    b[100:200], b[600:900] = a[300:400], a[500:800]
    copies = find_copies([track(a, "a"), track(b, "b")])
    assert [(c.first_start, c.second_start, c.n) for c in copies] == [(300, 100, 100), (500, 600, 300)]


def test_every_pair_of_many_copies_is_named():
    same = noise(80)
    tracks = [track(np.concatenate([noise(10 * i), same]), f"r{i}") for i in range(5)]
    assert {(c.first.name, c.second.name) for c in find_copies(tracks)} == {
        (f"r{i}", f"r{j}") for i in range(5) for j in range(i + 1, 5)
    }


def test_the_anchors_of_a_long_track_do_not_depend_on_how_it_is_read(monkeypatch):
    values = noise(5000)
    values[2000:2300] = values[2000]
    whole = [np.concatenate(x) for x in zip(*anchors(track(values)), strict=True)]
    monkeypatch.setattr("aar_dist.evaluation.fingerprints.READ", 700)
    pieces = [np.concatenate(x) for x in zip(*anchors(track(values)), strict=True)]
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not ((whole[0] > 1990) & (whole[0] < 2270)).any()


def test_standing_still_and_what_is_within_one_recording_are_no_copies():
    still, flicker = np.zeros((500, 3), "<f4"), (RNG.random((500, 1)) < 0.5).astype("<i2")
    gap = np.full((500, 3), np.nan, "<f4")
    for same in (still, flicker, gap):
        assert find_copies([track(same, "a"), track(same.copy(), "b")]) == []
    values = noise(300)
    twice = [track(values, "a", sensor="acc1"), track(values, "a", sensor="acc2"), track(values[:20], "b")]
    assert find_copies(twice) == []
    assert find_copies([]) == []


def write(root: Path, dataset: str, subject: str, values, *, at_s: float | None = None, k: int = 0) -> None:
    start = None if at_s is None else str(START + np.timedelta64(round(1000 * at_s), "ms"))
    sensors = {"acc": SensorData(values=values, rate_hz=10.0, units="g", axes=("x", "y", "z"))}
    dataset_to_hdf5(
        root / dataset, dataset=dataset, species="cow", subject=subject, sensors=sensors,
        label=np.zeros(len(values), np.int16), classes=("rest",), first_index=k, start_time=start,
    )  # fmt: skip


@pytest.fixture(scope="module")
def herds(tmp_path_factory) -> Path:
    """Cow 1 published again as cow 9 of another herd, shifted; cow 2 wears two devices at once; neighbours touch."""
    root = tmp_path_factory.mktemp("herds")
    first = noise(3000)
    write(root, "old", "1", first, at_s=0)
    write(root, "old", "2", noise(1200), at_s=0)
    write(root, "old", "2", noise(1000), at_s=100, k=1)
    write(root, "old", "3", noise(1000), at_s=0)
    write(root, "old", "3", noise(600), at_s=99.9, k=1)
    write(root, "new", "9", np.concatenate([noise(300), first[1000:2500]]))
    write(root, "new", "8", noise(900))
    return root


@pytest.fixture(scope="module")
def tracks(herds) -> dict[str, list[Track]]:
    """The same from the recordings and from shards whose chunks are shorter than the recordings."""
    options = BuildOptions(datasets=("new", "old"), longest_segment_s=0.5, shard_bytes=20_000)
    folder = build(herds, herds / "shards", options, workers=1).folder
    recordings = [r for name in ("old", "new") for r in find_recordings(herds / name)]
    return {"recordings": tracks_of_recordings(recordings), "shards": tracks_of_shards([folder])}


@pytest.mark.parametrize("of", ["recordings", "shards"])
def test_what_two_recordings_share(tracks, of):
    by_name = {(t.dataset, t.recording): t for t in tracks[of]}
    assert len(by_name) == 7
    assert by_name["old", "cow_1_ds_0"].n == 3000
    samples, time = find_shared(tracks[of])
    assert (samples.what, samples.places) == (SAMPLES, (("new", "cow_9_ds_0"), ("old", "cow_1_ds_0")))
    assert (samples.first_s, samples.second_s, samples.duration_s) == (30.0, 100.0, 150.0)
    assert (time.what, time.places) == (TIME, (("old", "cow_2_ds_0"), ("old", "cow_2_ds_1")))
    assert (time.first_s, time.second_s, time.duration_s) == (100.0, 0.0, 20.0)


def test_shards_are_read_as_the_recordings_are(tracks):
    stored = {(t.dataset, t.recording): t for t in tracks["shards"]}
    for t in tracks["recordings"]:
        other = stored[t.dataset, t.recording]
        assert (other.n, other.subject, other.started) == (t.n, t.subject, t.started)
        np.testing.assert_array_equal(other.read(95, t.n - 7), t.read(95, t.n - 7))


def test_start_times_of_several_zones_are_one_clock(tmp_path):
    for k, start in enumerate(("2024-05-13T14:00:00+02:00", "2024-05-13T12:00:30+00:00", "2024-05-13T13:00:00Z")):
        sensors = {"acc": SensorData(values=noise(600), rate_hz=10.0, units="g", axes=("x", "y", "z"))}
        dataset_to_hdf5(
            tmp_path / "d", dataset="d", species="cow", subject="1", sensors=sensors, first_index=k, start_time=start
        )
    (shared,) = find_shared(tracks_of_recordings(find_recordings(tmp_path / "d")))
    assert (shared.first.recording, shared.second.recording, shared.duration_s) == ("cow_1_ds_0", "cow_1_ds_1", 30.0)


def test_a_leak_is_named_or_allowed(tracks, herds, tmp_path, capsys):
    subjects = sorted({t.subject for t in tracks["shards"]})
    folds = make_folds(subjects, 5, validation_share=0)
    with pytest.raises(ConfigError) as caught:
        audited(folds, tracks["shards"])
    told = str(caught.value)
    assert "new/cow_9_ds_0 of new/9 from 30 s and old/cow_1_ds_0 of old/1 from 100 s share 150 s" in told
    assert "--allow_leaks" in told
    assert "\n" not in told
    audit = audited(folds, tracks["shards"], allow_leaks=True).audit
    assert {(leak["first"]["subject"], leak["second"]["subject"]) for leak in audit["leaks"]} == {("new/9", "old/1")}
    assert len(audit["leaks"]) == 2, "once for the fold that tests the one, once for the other"
    assert len(audit["shared"]) == 2
    together = replace(folds, folds=(replace(folds.fold(0), train=("old/2", "old/3"), test=("new/9", "old/1")),))
    assert audited(together, tracks["shards"]).audit["leaks"] == []
    with pytest.raises(ConfigError, match="subject new/8 of the folds has no recording here"):
        audited(folds, [t for t in tracks["shards"] if t.subject != "new/8"])
    path = tmp_path / "folds.json"
    keep_folds(path, folds)
    with pytest.raises(SystemExit) as stop:
        main([str(herds / "shards"), "--folds", str(path)])
    assert stop.value.code == 2
    assert "share 150 s of the same samples" in capsys.readouterr().err
    main([str(herds / "old"), str(herds / "new")])
    assert "7 recordings, 2 pairs share samples, time or a name" in capsys.readouterr().out


def test_time_leaks_where_one_subject_is_split_by_recording(tracks):
    shared = find_shared(tracks["recordings"])
    side = {("old", "cow_2_ds_0"): "train", ("old", "cow_2_ds_1"): "test", ("new", "cow_9_ds_0"): "test"}
    assert [s.what for s in leaks(shared, side)] == [TIME]
    assert leaks(shared, side | {("old", "cow_2_ds_1"): "train"}) == []


def namesakes(*datasets: str) -> list[Track]:
    """Cow 7 of each data set, and a cow of another name."""
    made = [track(noise(300), f"{d}_{who}", subject=f"{d}/{who}") for d in datasets for who in ("7", d[-1] + "8")]
    return [replace(t, dataset=t.subject.partition("/")[0], species="cow") for t in made]


def test_one_name_in_data_sets_of_one_family_is_asked_about(tmp_path):
    tracks = namesakes("herd_2023", "herd_2024", "zoo")
    (pair,) = find_shared(tracks)
    assert (pair.what, pair.first.subject, pair.second.subject) == (NAME, "herd_2023/7", "herd_2024/7")
    assert find_shared([replace(t, species=t.dataset) for t in tracks]) == []
    folds = make_folds([t.subject for t in tracks], "leave_one_out", validation_share=0)
    with pytest.raises(ConfigError) as caught:
        audited(folds, tracks)
    assert "herd_2023/7 and herd_2024/7 bear one name in data sets of one family, one on the " in str(caught.value)
    assert "(--cross_validation.group name), if not, say so (--namesakes differ)" in str(caught.value)
    assert audited(folds, tracks, namesakes="differ").audit["leaks"] == []
    one = {t.subject: t.subject.partition("/")[2] for t in tracks}
    assert audited(make_folds(list(one), 2, groups=one, one_each=True), tracks).audit["leaks"] == []
