"""The stream end to end: what comes out equals the recordings, for any number of ranks and threads."""

import itertools
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from aar_dist.base.errors import ConfigError, ShardError
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.config import DataConfig, MixtureConfig
from aar_dist.stream.loader import open_stream
from aar_dist.stream.segments import centred, zscore


@pytest.fixture
def data(shard_set) -> DataConfig:
    return DataConfig(shards=[str(shard_set)], segment_duration=1.0, lanes=16)


def take(stream, n: int, position: int = 0, batch: int = 64, micro: int | None = None) -> list[SegmentBatch]:
    with stream:
        return list(itertools.islice(stream.batches(position, batch, micro or batch // stream.world_size), n))


def joined(batches: list[SegmentBatch]) -> SegmentBatch:
    """Micro-batches as one batch; shorter ones are padded."""
    samples = max(b.values.shape[1] for b in batches)

    def padded(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, (0, 0, 0, samples - x.shape[1]))

    cat = {name: torch.cat([getattr(b, name) for b in batches]) for name in ("rate_hz", "dataset", "channel", "key")}
    return SegmentBatch(
        values=torch.cat([padded(b.values) for b in batches]),
        valid=torch.cat([padded(b.valid) for b in batches]),
        **cat,
    )


def same(a: SegmentBatch, b: SegmentBatch) -> bool:
    return all(
        torch.equal(getattr(a, n), getattr(b, n)) for n in ("values", "valid", "rate_hz", "dataset", "channel", "key")
    )


@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("threads", [1, 3])
def test_global_batches_do_not_depend_on_ranks_or_threads(data, world, threads):
    whole = take(open_stream(data, "train"), 3, position=1000)
    ranks = [
        take(open_stream(replace(data, reader_threads=threads), "train", rank, world), 6, 1000, micro=32 // world)
        for rank in range(world)
    ]
    for step in range(3):
        parts = [batch for rank in ranks for batch in rank[2 * step : 2 * step + 2]]
        assert same(joined(parts), whole[step])


def test_segments_equal_their_recordings(data, recordings):
    for batch in take(open_stream(data, "train", origins=True), 4):
        for i, origin in enumerate(batch.origin):
            with h5py.File(recordings / origin.dataset / f"{origin.recording}.hdf5") as file:
                sensor = file[origin.sensor]
                n = round(float(batch.rate_hz[i]))
                first = round(origin.start_s * n)
                expected = sensor[first : first + n] * np.float32(sensor.attrs.get("scale", 1.0))
            assert np.allclose(batch.values[i, :n].numpy(), expected, rtol=1e-6)
            assert batch.valid[i, :n].all()
            assert not batch.valid[i, n:].any()
            assert batch.n_samples[i] == n
            assert not batch.values[i, n:].any()
            assert origin.dataset == ("fast", "slow")[batch.dataset[i]]


def test_mixture_counts_this_split_only(data, recordings):
    stream = open_stream(data, "train")
    with stream:
        assert stream.datasets == ("fast", "slow")
        assert stream.n_segments == sum(stream.tape.totals)
        assert stream.tape.totals == [int(s * 5) for s in stream.source.seconds]
        whole = {d: sum(h5py.File(p)["acc"].shape[0] for p in (recordings / d).iterdir()) for d in ("fast", "slow")}
        with open_stream(data, "val") as val:
            for i, (name, rate) in enumerate((("fast", 50), ("slow", 10))):
                recorded = (stream.source.seconds[i] + val.source.seconds[i]) * rate
                too_short = 4 * round(0.7 * 50) if name == "fast" else 0
                assert round(recorded) == whole[name] - too_short


def test_recordings_shorter_than_a_segment_are_counted(data):
    with open_stream(data, "train") as stream:
        assert stream.source.too_short == 2


def test_validation_serves_every_segment_once_to_any_world(data):
    def keys(world: int) -> list[int]:
        found = []
        for rank in range(world):
            with open_stream(data, "val", rank, world) as stream:
                batches = list(stream.evaluation(128, 128 // world))
                found.append(
                    [k for batch, w in batches for k, v in zip(batch.key.tolist(), w.tolist(), strict=True) if v]
                )
        return sorted(itertools.chain(*found))

    alone = keys(1)
    with open_stream(data, "val") as stream:
        assert len(alone) == len(set(alone)) == stream.n_segments
    assert keys(2) == alone
    assert keys(4) == alone


def test_several_sensors_draw_the_same_seconds(data, recordings):
    both = replace(data, sensors=["acc", "gyr"])
    for batch in take(open_stream(both, "train", origins=True), 2):
        assert batch.values.shape[2] == 6
        for i, origin in enumerate(batch.origin):
            has_gyr = origin.dataset == "fast"
            assert (batch.channel[i] >= 0).tolist() == [True] * 3 + [has_gyr] * 3
            n = round(float(batch.rate_hz[i]))
            assert bool(batch.valid[i, :n, 3:].all()) == has_gyr
            if has_gyr:
                first = round(origin.start_s * n)
                with h5py.File(recordings / "fast" / f"{origin.recording}.hdf5") as file:
                    assert np.array_equal(batch.values[i, :n, 3:].numpy(), file["gyr"][first : first + n])


def test_a_longer_segment_is_cut_off_at_the_window(data):
    batch = take(open_stream(replace(data, max_window_length=30), "train"), 1)[0]
    assert batch.values.shape[1] == 30


def test_a_segment_longer_than_the_shards_serve(data):
    with pytest.raises(ConfigError, match=r"data.segment_duration is 2 s.*--longest_segment_s 2"):
        open_stream(replace(data, segment_duration=2.0), "train")


@pytest.mark.parametrize("normalize", ["segment", "recording", "dataset"])
def test_normalisation(data, normalize):
    batches = take(open_stream(replace(data, normalize=normalize), "train"), 20)
    values = torch.cat([b.values[b.valid] for b in batches])
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02


def test_zscore_leaves_gaps_and_constants_alone():
    x = torch.tensor([[[1.0, 5.0], [3.0, 5.0], [0.0, 5.0]]])
    valid = torch.tensor([[[True, True], [True, True], [False, True]]])
    assert zscore(x, valid).tolist() == [[[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize("value", [0.1, 9.81, -213.06])
def test_what_stands_still_is_zero_and_far_from_zero_nothing_is_lost(value):
    """In float32 the sum of 250 times 0.1 is not 250 times 0.1: the rest would be scaled up to 1."""
    x = torch.full((1, 250, 1), value)
    everything = torch.ones_like(x, dtype=torch.bool)
    assert zscore(x, everything).abs().max() == 0
    x += 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(zscore(x.flip(1), everything).flip(1), zscore(x, everything), rtol=0, atol=1e-6)


def test_centring_takes_the_mean_off_and_leaves_the_scale():
    x = torch.tensor([[[1.0, 5.0], [3.0, 5.0], [9.0, 5.0]]])
    valid = torch.tensor([[[True, True], [True, True], [False, True]]])
    assert centred(x, valid).tolist() == [[[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]]


def test_segments_are_centred_one_by_one(data):
    raw, made = (take(open_stream(replace(data, normalize=n), "train"), 1)[0] for n in ("none", "centre"))
    n = raw.valid.sum(1, keepdim=True).clamp(min=1)
    expected = torch.where(raw.valid, raw.values - raw.values.sum(1, keepdim=True) / n, 0.0)
    assert torch.allclose(made.values, expected, atol=1e-5)
    assert not torch.allclose(raw.values, expected, atol=1e-2)


def test_gaps_are_not_valid(tmp_path):
    values = np.random.default_rng(0).normal(size=(4000, 3)).astype("<f4")
    values[100:400, 1] = np.nan
    for subject in "ab":
        acc = SensorData(values=values, rate_hz=10.0, units="m/s^2", axes=("x", "y", "z"))
        dataset_to_hdf5(tmp_path / "d" / "gaps", dataset="gaps", species="cow", subject=subject, sensors={"acc": acc})
    build(tmp_path / "d", tmp_path / "set", BuildOptions(datasets=("gaps",)), workers=1)
    batch = take(
        open_stream(DataConfig(shards=[str(tmp_path / "set")], segment_duration=20.0), "train", origins=True), 1
    )[0]
    for i, origin in enumerate(batch.origin):
        first = round(origin.start_s * 10)
        expected = values[first : first + 200]
        assert np.array_equal(batch.valid[i].numpy(), np.isfinite(expected))
        assert np.allclose(batch.values[i].numpy(), np.nan_to_num(expected) / 9.80665, rtol=1e-6)


def test_subjects_alike(data):
    mixture = MixtureConfig(within="subject")
    with open_stream(replace(data, mixture=mixture), "train", origins=True) as stream:
        batches = list(itertools.islice(stream.batches(0, 512, 512), stream.n_segments // 512))
    subjects = [o.subject for b in batches for o in b.origin if o.dataset == "fast"]
    counts = {s: subjects.count(s) for s in set(subjects)}
    assert len(counts) == 2
    assert max(counts.values()) / min(counts.values()) < 1.01


def test_a_set_named_twice_is_refused(data, shard_set, tmp_path):
    shutil.copytree(shard_set, tmp_path / "copy")
    with pytest.raises(ConfigError, match=r"copy is the same shard set as .*set"):
        open_stream(replace(data, shards=[str(shard_set), str(tmp_path / "copy")]), "train")


def test_two_sets_side_by_side(recordings, tmp_path):
    sets = []
    for name in ("fast", "slow"):
        options = BuildOptions(datasets=(name,), longest_segment_s=1.0)
        sets.append(str(build(recordings, tmp_path / name, options, workers=1).folder))
    with open_stream(DataConfig(shards=sets, segment_duration=1.0), "train") as stream:
        assert stream.datasets == ("fast", "slow")
        assert next(stream.batches(0, 64, 64)).dataset.bincount().min() > 0


def test_a_subject_cannot_train_in_one_set_and_validate_in_another(recordings, tmp_path):
    sets = []
    for seed in (578, 3):
        options = BuildOptions(datasets=("slow",), longest_segment_s=1.0, random_seed=seed)
        sets.append(str(build(recordings, tmp_path / str(seed), options, workers=1).folder))
    with pytest.raises(ShardError, match=r"subject slow/s\d trains in one shard set and validates in another"):
        open_stream(DataConfig(shards=sets, segment_duration=1.0), "train")


def test_one_scale_for_training_and_validation(data):
    of = replace(data, normalize="dataset")
    with open_stream(of, "train") as train, open_stream(of, "val") as val:
        rows = [s.source.rows for s in (train, val)]
        places = [s.source.origin["dataset"][:] for s in (train, val)]
        for name in ("fast", "slow"):
            scales = [np.unique(r.scale[p == name], axis=0) for r, p in zip(rows, places, strict=True)]
            assert np.array_equal(*scales)
            assert len(scales[0]) == 1
    raw = torch.cat([b.values[b.valid] for b in take(open_stream(of, "train"), 20)])
    assert abs(raw.std() - 1) < 0.02


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<i4", "<i8", "|u1", "<f2", "<f8", ">i2", ">f4"])
def test_every_stored_type(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 250, (300, 2)).astype(dtype)
    if dtype in ("<u2", "<u4"):
        values[::7] = np.iinfo(dtype).max - np.arange(2)
    for subject in "ab":
        acc = SensorData(values=values, rate_hz=10.0, units="g", axes=("x", "y"))
        dataset_to_hdf5(tmp_path / "d" / "t", dataset="t", species="cow", subject=subject, sensors={"acc": acc})
    build(tmp_path / "d", tmp_path / "set", BuildOptions(datasets=("t",)), workers=1)
    stream = open_stream(DataConfig(shards=[str(tmp_path / "set")], segment_duration=5.0), "train", origins=True)
    batch = take(stream, 1, batch=8)[0]
    for i, origin in enumerate(batch.origin):
        first = round(origin.start_s * 10)
        assert np.array_equal(batch.values[i].numpy(), values[first : first + 50].astype(np.float32))


def test_segments_are_announced_where_memory_is_short(data, monkeypatch):
    told = []
    available = type("Memory", (), {"available": 0})
    monkeypatch.setattr("aar_dist.stream.maps.psutil.virtual_memory", lambda: available)
    monkeypatch.setattr("aar_dist.stream.maps.os.posix_fadvise", lambda *arguments: told.append(arguments[1:3]))
    with open_stream(data, "train") as stream:
        whole = take(open_stream(data, "train"), 2)
        assert all(same(a, b) for a, b in zip(take(stream, 2), whole, strict=True))
        rows, segments = stream.source.rows, stream.tape.segments_at(stream.tape.batches(0, 64, 1)[0])
    row = stream.source.parts[segments.item, 0]
    frame = np.array([np.dtype(d).itemsize for d in stream.source.dtypes])[rows.dtype[row]] * 3
    assert set(
        zip((rows.offset[row] + segments.start * frame).tolist(), (rows.window[row] * frame).tolist(), strict=True)
    ) <= set(told)


def test_data_sets_that_vanish_are_named(recordings, tmp_path):
    root = tmp_path / "d"
    values = np.ones((30, 1), "<f4")
    for name, n in (("short", 1), ("long", 10)):
        for subject in "ab":
            acc = SensorData(values=np.tile(values, (n, 1)), rate_hz=10.0, units="g", axes=("x",))
            dataset_to_hdf5(root / name, dataset=name, species="cow", subject=subject, sensors={"acc": acc})
    build(root, tmp_path / "set", BuildOptions(datasets=("long", "short")), workers=1)
    with open_stream(DataConfig(shards=[str(tmp_path / "set")], segment_duration=5.0), "train") as stream:
        assert stream.source.too_short == 1  # the two sets' recordings have one name
        assert stream.source.vanished == ("short",)
        assert stream.datasets == ("long",)


def test_errors_name_what_is_wrong(data, shard_set, tmp_path):
    with pytest.raises(ConfigError, match=r"data.shards is empty"):
        open_stream(replace(data, shards=[]), "train")
    with pytest.raises(ShardError, match="no such folder"):
        open_stream(replace(data, shards=[str(tmp_path / "none")]), "train")
    with pytest.raises(ConfigError, match=r"no sensor 'ecg'.*\['acc', 'gyr'\]"):
        open_stream(replace(data, sensors=["acc", "ecg"]), "train")
    with pytest.raises(ShardError, match="no train data"):
        open_stream(replace(data, kinds=["ecg"]), "train")
    shutil.copytree(shard_set, tmp_path / "set")
    victim = sorted((tmp_path / "set").glob("*train*.tar"))[0]
    victim.write_bytes(victim.read_bytes()[:-1024])
    with pytest.raises(ShardError, match=f"{victim.name}: has .* bytes, the manifest says"):
        open_stream(replace(data, shards=[str(tmp_path / "set")]), "train")
    with (
        open_stream(data, "train", 0, 3) as stream,
        pytest.raises(ConfigError, match="not divisible by the world size 3"),
    ):
        stream.batches(0, 512, 1)


def test_a_fault_in_a_reader_thread_reaches_the_caller(data, monkeypatch):
    from aar_dist.stream.segments import Cutter

    def broken(self, refs):
        raise ShardError("gone")

    monkeypatch.setattr(Cutter, "cut", broken)
    with open_stream(data, "train") as stream, pytest.raises(ShardError, match="gone"):
        next(stream.batches(0, 64, 64))
