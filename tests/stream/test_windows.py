"""Labelled windows against a plain reading of the recordings."""

import itertools
from collections import Counter

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aar_dist.base.errors import ConfigError
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig
from aar_dist.stream.window_order import BalancedOrder, WindowOrder
from aar_dist.stream.windows import WindowConfig, WindowTable, open_windows, window_stream


@pytest.fixture
def data(shard_set) -> DataConfig:
    return DataConfig(shards=[str(shard_set)], segment_duration=1.0)


def plain_windows(recordings, hop_s: float, min_share: float) -> dict[tuple[str, str, float], str]:
    """(data set, recording, start) -> class, by looking at every window of every file."""
    found = {}
    for path in sorted(recordings.glob("*/*.hdf5")):
        with h5py.File(path) as file:
            rate, labels = float(file["acc"].attrs.get("sr", file.attrs.get("sr"))), file["label"][:]
            classes = [str(c) for c in file["label"].attrs["classes"]]
        n = round(rate)
        for k in itertools.count():
            start = round(k * hop_s * rate)
            if start + n > len(labels):
                break
            counts = np.bincount(labels[start : start + n][labels[start : start + n] >= 0], minlength=3)
            if counts.max() >= min_share * n - 0.5:
                found[path.parent.name, path.stem, round(start / rate, 6)] = classes[counts.argmax()]
    return found


@pytest.mark.parametrize(("hop_s", "min_share"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7), (0.3, 0.6)])
def test_windows_are_those_of_a_plain_reading(recordings, data, hop_s, min_share):
    _, table = open_windows(data, WindowConfig(hop_s=hop_s, min_share=min_share))
    got = {
        (d, r, round(s, 6)): table.classes[label]
        for d, r, s, label in zip(table.dataset, table.recording, table.start_s, table.label, strict=True)
    }
    assert len(got) == len(table)
    assert got == plain_windows(recordings, hop_s, min_share)


def test_batches_carry_labels_of_their_seconds(recordings, data):
    source, table = open_windows(data, WindowConfig())
    with window_stream(source, table, data, shuffle=True, origins=True) as stream:
        for batch in itertools.islice(stream.batches(0, 64, 64), 5):
            for i, origin in enumerate(batch.origin):
                with h5py.File(recordings / origin.dataset / f"{origin.recording}.hdf5") as file:
                    n = round(float(batch.rate_hz[i]))
                    first = round(origin.start_s * n)
                    name = str(file["label"].attrs["classes"][file["label"][first]])
                    scale = np.float32(file["acc"].attrs.get("scale", 1.0))
                    assert np.allclose(batch.values[i, :n], file["acc"][first : first + n] * scale, rtol=1e-6)
                assert table.classes[batch.label[i]] == name


def test_every_epoch_serves_every_window_once_in_another_order(data):
    _, table = open_windows(data, WindowConfig())
    order = WindowOrder(table, seed=3, shuffle=True)
    epochs = [order.segments_at(np.arange(e * len(table), (e + 1) * len(table))) for e in range(2)]
    whole = Counter(zip(table.item.tolist(), table.start.tolist(), strict=True))
    for refs in epochs:
        assert Counter(zip(refs.item.tolist(), refs.start.tolist(), strict=True)) == whole
    assert not np.array_equal(epochs[0].start, epochs[1].start)
    assert len({*epochs[0].key.tolist(), *epochs[1].key.tolist()}) == 2 * len(table)


def labelled(counts: list[int]) -> WindowTable:
    """Windows of classes 0, 1, …; some without a class between them."""
    label = np.repeat([*range(len(counts)), -1], [*counts, 3])
    n, text = len(label), np.full(len(label), "x")
    order = np.argsort(np.sin(np.arange(n)))
    return WindowTable(
        item=np.arange(n), start=np.zeros(n, np.int64), label=label[order], dataset=text, subject=text, recording=text,
        start_s=np.zeros(n), stop_s=np.ones(n), classes=tuple(f"c{k}" for k in range(len(counts))),
    )  # fmt: skip


@given(st.lists(st.integers(0, 40), min_size=2, max_size=6).filter(any), st.integers(0, 2**31), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_balanced_epochs_hold_every_class_equally_often_and_every_window_in_turn(counts, seed, epochs):
    table, present = labelled(counts), [k for k, n in enumerate(counts) if n]
    order = BalancedOrder(table, seed=seed)
    assert abs(order.n_segments - sum(counts)) <= max(len(present) / 2, len(present) - sum(counts))
    for epoch in range(epochs):
        refs = order.segments_at(epoch * order.n_segments + np.arange(order.n_segments))
        assert Counter(refs.label.tolist()) == dict.fromkeys(present, order.quota)
        assert np.array_equal(refs.label, table.label[refs.item])
    seen = Counter(order.segments_at(np.arange(epochs * order.n_segments)).item.tolist())
    for k in present:
        times = [seen[i] for i in np.flatnonzero(table.label == k).tolist()]
        assert max(times) - min(times) <= 1
    shuffled = np.random.default_rng(seed).permutation(epochs * order.n_segments)
    one_by_one = order.segments_at(shuffled.reshape(-1, 1)).item[:, 0]
    assert np.array_equal(one_by_one, order.segments_at(shuffled).item), "a pure function of the position"


def test_balanced_batches_are_the_same_for_any_number_of_ranks(data):
    source, table = open_windows(data, WindowConfig())
    served = {}
    for world in (1, 2):
        parts = []
        for rank in range(world):
            more = {"sampling": "balanced", "rank": rank, "world_size": world}
            with window_stream(source, table, data, shuffle=True, **more) as stream:
                parts.append([b.label for b in itertools.islice(stream.batches(32, 32, 32 // world), 4)])
        served[world] = torch.stack([torch.cat(step) for step in zip(*parts, strict=True)])
    assert torch.equal(served[1], served[2])
    with window_stream(source, table, data, shuffle=False, sampling="balanced") as stream:
        assert stream.n_segments == len(table), "what is evaluated stands as it is"


def test_evaluation_keeps_the_order_on_any_number_of_ranks(data):
    source, table = open_windows(data, WindowConfig())
    table = table.select(np.char.startswith(table.subject, "slow/s1"))
    served = {}
    for world in (1, 2):
        parts = []
        for rank in range(world):
            with window_stream(source, table, data, shuffle=False, rank=rank, world_size=world) as stream:
                parts.append([b.label[w > 0] for b, w in stream.evaluation(32, 32 // world)])
        served[world] = torch.cat([part for step in zip(*parts, strict=True) for part in step])
        assert served[world].tolist() == table.label.tolist()


def test_chosen_classes_number_as_given(data):
    _, table = open_windows(data, WindowConfig(classes=["walk", "rest"]))
    assert table.classes == ("walk", "rest")
    assert set(table.label.tolist()) == {0, 1}
    with pytest.raises(ConfigError, match=r"no label 'fly'.*\['rest', 'run', 'walk'\]"):
        open_windows(data, WindowConfig(classes=["fly"]))


def test_chosen_data_sets(data):
    _, every = open_windows(data, WindowConfig(min_share=0.7))
    _, table = open_windows(data, WindowConfig(min_share=0.7, datasets=["slow"]))
    mine = every.select(every.dataset == "slow")
    assert 0 < len(table) < len(every)
    assert table.recording.tolist() == mine.recording.tolist()
    assert table.start_s.tolist() == mine.start_s.tolist()
    assert table.label.tolist() == mine.label.tolist()
    with pytest.raises(ConfigError, match=r"no data set 'quick' in the shards; there are \['fast', 'slow'\]"):
        open_windows(data, WindowConfig(datasets=["quick"]))


def test_a_target_is_the_mean_over_the_window(tmp_path):
    target = np.repeat([60.0, 70.0, np.nan, 80.0], [100, 55, 45, 100])
    acc = SensorData(values=np.ones((300, 1), "<f4"), rate_hz=10.0, units="g", axes=("x",))
    for subject in "ab":
        dataset_to_hdf5(
            tmp_path / "d" / "hr", dataset="hr", species="man", subject=subject, sensors={"acc": acc}, label=target
        )
    build(tmp_path / "d", tmp_path / "set", BuildOptions(datasets=("hr",), longest_segment_s=4.0), workers=1)
    data = DataConfig(shards=[str(tmp_path / "set")], segment_duration=4.0)
    _, table = open_windows(data, WindowConfig(min_share=0.75))
    assert table.classes is None
    mine = table.subject == "hr/a"
    assert table.start_s[mine].tolist() == [0, 4, 8, 12, 20, 24]
    assert table.label[mine].tolist() == [60, 60, 65, 70, 80, 80]


def test_no_window_at_all(data):
    with pytest.raises(ConfigError, match="hop_s must be positive"):
        WindowConfig(hop_s=0.0)
    with pytest.raises(ConfigError, match="min_share must lie"):
        WindowConfig(min_share=0.4)
    with pytest.raises(ConfigError, match="no window of 1 s carries"):
        open_windows(DataConfig(shards=data.shards, segment_duration=1.0, kinds=["gyr"]), WindowConfig(classes=[]))
