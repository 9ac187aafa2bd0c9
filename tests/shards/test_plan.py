"""The plan: every start once, whole subjects, equal shards."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aar_dist.recordings.contract import LabelTrack, Recording, Sensor
from aar_dist.shards.plan import Chunk, label_span, plan_shards, segment_samples, span_of, split_subjects


def recording(name: str, subject: str, n: int, rates=(10.0,), label=True) -> Recording:
    sensors = tuple(
        Sensor(
            name=f"acc{i}",
            kind="acc",
            rate_hz=rate,
            n_samples=round(n * rate / rates[0]),
            n_axes=3,
            dtype="<f4",
            units="g",
            axes=("x", "y", "z"),
            scale=(1.0,) * 3,
            offset=(0.0,) * 3,
        )
        for i, rate in enumerate(rates)
    )
    return Recording(
        path=Path(f"{name}.hdf5"),
        dataset="d",
        subject=subject,
        species="cow",
        recording=name,
        location="",
        start_time=None,
        sensors=sensors,
        label=LabelTrack(rate_hz=rates[0], n=n, classes=("a",)) if label else None,
    )


lengths = st.lists(st.integers(1, 40_000), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    lengths=lengths, longest=st.integers(1, 60), segment=st.integers(1, 60), shard_bytes=st.integers(10_000, 2_000_000)
)
def test_every_start_belongs_to_one_chunk(lengths, longest, segment, shard_bytes):
    segment = min(segment, longest)
    recordings = [recording(f"r{i}", f"s{i % 3}", n) for i, n in enumerate(lengths)]
    longest_s = longest / 10.0
    specs = plan_shards(
        recordings, train_ratio=0.5, random_seed=1, longest_segment_s=longest_s, shard_bytes=shard_bytes
    )
    starts: Counter[tuple[int, int]] = Counter()
    for spec in specs:
        for chunk in spec.chunks:
            span = span_of(recordings[chunk.recording], recordings[chunk.recording].sensors[0], chunk, longest_s)
            n_starts = max(0, min(span.owned, span.stop - span.start - segment + 1))
            starts.update((chunk.recording, span.start + i) for i in range(n_starts))
    expected = {(i, start) for i, n in enumerate(lengths) for start in range(n - segment + 1)}
    assert set(starts) == expected
    assert set(starts.values()) <= {1}


@pytest.mark.parametrize("segment", [250, 1000])
def test_segments_of_250_in_a_set_built_for_1000(segment):
    one = recording("r", "s", 730_001, rates=(100.0,))
    specs = plan_shards([one], train_ratio=0.5, random_seed=1, longest_segment_s=10.0, shard_bytes=3_000_000)
    chunks = sorted((c for spec in specs for c in spec.chunks), key=lambda c: c.start)
    assert len(chunks) > 3
    spans = [span_of(one, one.sensors[0], c, 10.0) for c in chunks]
    starts = np.concatenate([s.start + np.arange(min(s.owned, s.stop - s.start - segment + 1)) for s in spans])
    assert np.array_equal(starts, np.arange(730_001 - segment + 1))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(200, 50_000), ratio=st.sampled_from([2, 5, 12.5, 3.3]))
def test_sensors_of_other_rates_cover_the_same_seconds(n, ratio):
    one = recording("r", "s", n, rates=(10.0, 10.0 * ratio))
    for spec in plan_shards([one], train_ratio=0.5, random_seed=1, longest_segment_s=2.0, shard_bytes=200_000):
        for chunk in spec.chunks:
            slow, fast = (span_of(one, s, chunk, 2.0) for s in one.sensors)
            labels = label_span(one, chunk, 2.0)
            assert (labels.start, labels.stop) == (slow.start, slow.stop)
            for start in range(min(slow.owned, slow.stop - slow.start - 20 + 1)):
                first = round((slow.start + start) / 10.0 * 10.0 * ratio)
                assert fast.start <= first + 1  # a half sample rounds either way
                assert first + segment_samples(2.0, 10.0 * ratio) <= fast.stop + 1


def test_the_overlap_stays_under_one_percent():
    rng = np.random.default_rng(0)
    recordings = [recording(f"r{i}", f"s{i % 6}", int(n)) for i, n in enumerate(rng.integers(31, 60_000, 60))]
    specs = plan_shards(recordings, train_ratio=0.5, random_seed=3, longest_segment_s=5.0, shard_bytes=500_000)
    assert len(specs) > 10
    stored = sum(s.stop - s.start for spec in specs for s in _spans(spec, recordings))
    assert 0 < stored / sum(r.sensors[0].n_samples for r in recordings) - 1 < 0.01


def test_a_tick_longer_than_a_shard_is_not_cut():
    one = recording("r", "s", 4, rates=(1 / 3600, 100.0), label=False)
    specs = plan_shards([one], train_ratio=0.5, random_seed=1, longest_segment_s=1.0, shard_bytes=400_000)
    assert all(chunk.start < chunk.stop for spec in specs for chunk in spec.chunks)


def test_what_fits_one_shard_is_one_shard():
    recordings = [recording(f"r{i}", "s", n) for i, n in enumerate([31, 31, 900, 31, 5000, 40])]
    specs = plan_shards(recordings, train_ratio=0.5, random_seed=3, longest_segment_s=5.0, shard_bytes=64_000_000)
    assert [len(s.chunks) for s in specs] == [6]


def _spans(spec, recordings):
    return [span_of(recordings[c.recording], recordings[c.recording].sensors[0], c, 5.0) for c in spec.chunks]


@given(
    names=st.sets(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=30),
    ratio=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_whole_subjects_are_split(names, ratio, seed):
    split = split_subjects(sorted(names), ratio, seed)
    assert set(split) == names
    assert split == split_subjects(sorted(names, reverse=True), ratio, seed)
    if len(names) > 1 and 0 < ratio < 1:
        assert set(split.values()) == {"train", "val"}


def test_split_is_that_of_the_first_system():
    from sklearn.model_selection import train_test_split

    subjects = [f"{i}" for i in range(20)]
    train, val = train_test_split(sorted(subjects), train_size=0.5, random_state=578)
    split = split_subjects(subjects, 0.5, 578)
    assert {s for s in subjects if split[s] == "train"} == set(train)
    assert {s for s in subjects if split[s] == "val"} == set(val)


def test_last_chunk_ends_with_the_recording():
    one = recording("r", "s", 100)
    assert span_of(one, one.sensors[0], Chunk(recording=0, start=90, stop=100), 2.0).stop == 100
