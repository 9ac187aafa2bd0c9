"""Resident samples: cut on the device, with the order and the bits of the host path."""

import logging
import re
import subprocess
import sys
from dataclasses import fields, replace
from itertools import islice
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from launching import ROOT, TINY, environment, flags

from aar_dist.base.errors import ConfigError
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream import resident
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.buffers import carved, send
from aar_dist.stream.config import DataConfig, Normalize
from aar_dist.stream.cuts import sent
from aar_dist.stream.loader import open_stream
from aar_dist.stream.maps import by_element, windows
from aar_dist.stream.resident import Resident, resident_on
from aar_dist.stream.windows import WindowConfig, open_windows, window_stream

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")


@pytest.fixture
def data(shard_set) -> DataConfig:
    return DataConfig(shards=[str(shard_set)], segment_duration=1.0, lanes=16)


def same(a: SegmentBatch, b: SegmentBatch) -> bool:
    """Equal in every field, to the bit."""
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)]
    return all(torch.equal(x, y) and x.dtype == y.dtype if torch.is_tensor(x) else x == y for x, y in pairs)


def check_same(data: DataConfig, split: str = "train", *, position: int = 0, rank: int = 0, world: int = 1) -> None:
    """Both ways of cutting give the same batches, in training and in validation."""
    streams = [
        open_stream(replace(data, resident=how), split, rank, world, origins=True) for how in ("never", "always")
    ]
    with streams[0] as host, streams[1] as device:
        pairs = zip(*(s.batches(position, 64, 16) for s in (host, device)), strict=True)
        assert all(same(a, b) for a, b in islice(pairs, 8))
        ends = zip(host.evaluation(128, 64), device.evaluation(128, 64), strict=True)
        assert all(same(a, b) and torch.equal(v, w) for (a, v), (b, w) in islice(ends, 20))
        assert host._residents == {CPU: None}
        assert device._residents[CPU] is not None


@pytest.mark.parametrize("change", [{}, {"sensors": ["gyr", "acc"]}, {"kinds": []}, {"normalize": "segment"}])
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_same_batches(data, change, split):
    check_same(replace(data, **change), split)


def test_the_same_after_a_resume_on_two_ranks_with_threads(data):
    for rank in range(2):
        check_same(replace(data, reader_threads=3), position=64 * 777, rank=rank, world=2)


def test_samples_come_in_pieces_smaller_than_a_chunk(data, monkeypatch):
    monkeypatch.setattr(resident, "PIECE_BYTES", 1001)  # no multiple of a sample, nor of its type
    check_same(replace(data, kinds=[]))


def test_the_gather_of_a_gpu_gives_the_same_batches(data, monkeypatch):
    gathered = []

    def on_gpu(flat, first, width, *, out=None):
        if out is not None:  # the host path
            return windows(flat, first, width, out=out)
        gathered.append(width)
        return by_element(flat, first, width)

    monkeypatch.setattr("aar_dist.stream.segments.windows", on_gpu)
    check_same(replace(data, kinds=[]))
    assert set(gathered) == {30, 150}


DTYPES = ("<f4", "<f8", "<f2", "<i2", "<u2", "<i4", "<u4", "<i8", "|i1", "|u1", ">i2", ">f4")
SENSOR = st.tuples(st.sampled_from(DTYPES), st.integers(1, 4))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sensors=st.lists(SENSOR, min_size=1, max_size=3),
    seconds=st.lists(st.integers(3, 90), min_size=2, max_size=4),
    together=st.booleans(),
    gaps=st.booleans(),
    pack=st.sampled_from([None, "int16", "float16"]),
    normalize=st.sampled_from(get_args(Normalize)),
)
def test_any_recordings(tmp_path_factory, sensors, seconds, together, gaps, pack, normalize):
    root = tmp_path_factory.mktemp("any")
    rng = np.random.default_rng(len(sensors))
    for subject, duration in enumerate(seconds):
        written = {}
        for k, (dtype, axes) in enumerate(sensors):
            kind = np.dtype(dtype).kind
            limits = (-1e3, 1e3) if kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            values = rng.uniform(*limits, (duration * 10, axes)).astype(dtype)
            if gaps and kind == "f":
                values[rng.random(values.shape) < 0.1] = np.nan
            names = tuple("xyzw"[:axes])
            written[f"acc{k}"] = SensorData(values=values, rate_hz=10.0, units="g", axes=names, scale=0.01)
        dataset_to_hdf5(root / "in" / "d", dataset="d", species="cow", subject=str(subject), sensors=written)
    options = BuildOptions(
        datasets=("d",), longest_segment_s=2.0, pack={"acc": pack} if pack else {}, max_pack_error=0.9
    )
    build(root / "in", root / "set", options, workers=1)
    data = DataConfig(
        shards=[str(root / "set")], segment_duration=1.7, sensors="all" if together else "each", normalize=normalize
    )
    with open_stream(data, "train") as stream:
        wide = {dtype for dtype, _ in sensors if np.dtype(dtype).itemsize > 2}
        assert (pack in stream.source.dtypes) == bool(pack and wide)
    check_same(data)


def test_labelled_windows(data):
    source, table = open_windows(data, WindowConfig(), unlabelled=True)
    few = table.select(np.char.startswith(table.subject, "fast/f1"))
    whole, made = (
        list(stream.evaluation(32, 32))
        for how in ("never", "always")
        for stream in [window_stream(source, few, replace(data, resident=how), shuffle=False, origins=True)]
    )
    assert len(whole) > 10
    assert all(same(a, b) and torch.equal(v, w) for (a, v), (b, w) in zip(whole, made, strict=True))


def test_only_what_is_drawn_from_is_placed(data):
    source, table = open_windows(data, WindowConfig(), unlabelled=True)
    items = np.unique(table.select(np.char.startswith(table.subject, "fast/f1")).item)
    found = resident_on(CPU, source, items, replace(data, resident="always"))
    rows = source.parts[items, 0]
    n_bytes = source.rows.n_samples[rows] * 3 * 4
    assert n_bytes.sum() <= found.flat("|u1").numel() < (n_bytes + 8).sum()
    assert (found.first >= 0).nonzero()[0].tolist() == sorted(rows)


def test_what_fits_stays_within_the_limit_to_the_byte(data, caplog):
    caplog.set_level(logging.INFO, "aar_dist")
    with open_stream(data, "train") as stream:
        source, items = stream.source, stream.tape.drawn()
        needed = int(resident.room_for(source, source.parts[items, 0]).sum())
        exact, short = (replace(data, resident_limit=limit) for limit in (needed, needed - 1))
        assert resident_on(ELSEWHERE, source, items, exact) is not None
        assert "resident on meta" in caplog.messages[-1]
        assert resident_on(ELSEWHERE, source, items, short) is None
        assert f"take {needed} bytes" in caplog.messages[-1]
        assert f"data.resident_limit is {needed - 1} " in caplog.messages[-1]
        assert len(caplog.messages) == 2
        assert resident_on(CPU, source, items, exact) is None
        assert resident_on(ELSEWHERE, source, items, replace(exact, resident="never")) is None
        assert len(caplog.messages) == 2
    refused = pytest.raises(ConfigError, match=rf"data.resident: always, but .* {needed} bytes .* {needed - 1} \(")
    with open_stream(replace(short, resident="always"), "train") as stream, refused:
        stream.batches(0, 64, 64)


def test_a_device_without_room_is_left_alone(data, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "aar_dist")

    def full(*arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Resident, "__init__", full)
    with open_stream(data, "train") as stream:
        assert resident_on(ELSEWHERE, stream.source, stream.tape.drawn(), replace(data, resident_limit="1TB")) is None
    assert "the device has no room left: they are cut on the host" in caplog.messages[-1]


def test_ranks_that_share_memory_share_what_is_free(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    alone = resident._share(CPU)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert alone * 0.2 < resident._share(CPU) < alone * 0.3


def test_a_limit_that_is_no_size_is_refused():
    with pytest.raises(ConfigError, match=r"data.resident_limit: 'much' is no size"):
        DataConfig(resident_limit="much")
    assert DataConfig(resident_limit="8GB").resident_bytes == DataConfig(resident_limit=8 * 10**9).resident_bytes


@pytest.mark.parametrize("gather", [windows, by_element])
def test_windows_beyond_two_to_the_31(gather):
    flat = torch.from_numpy(np.zeros(2**31 + 4096, np.int8))  # pages that are not touched take no memory
    flat[-100:] = torch.arange(100, dtype=torch.int8)
    first = torch.tensor([len(flat) - 7, 0, len(flat) - 100])
    assert gather(flat, first, 7).tolist() == [[*range(93, 100)], [0] * 7, [*range(7)]]


def test_a_plan_is_sent_whole(data):
    with open_stream(replace(data, kinds=[]), "train") as stream:
        cutter = stream._cutter(CPU)
        plan = cutter.plan([stream.tape.segments_at(stream.tape.batches(0, 64, 1)[0])])[0]
    there = sent(plan, ELSEWHERE)
    assert len(there.groups) == len(plan.groups) > 1
    for old, new in zip((plan, *plan.groups), (there, *there.groups), strict=True):
        for name in (f.name for f in fields(old) if f.name != "groups"):
            a, b = getattr(old, name), getattr(new, name)
            if torch.is_tensor(a):
                assert (b.device, b.shape, b.dtype) == (ELSEWHERE, a.shape, a.dtype)
            else:
                assert a is b


def test_small_tensors_travel_together():
    tensors = [torch.arange(5), torch.rand(3, 1, 2), torch.tensor(7, dtype=torch.int8), torch.zeros(0, 4)]
    places = carved(torch.empty(4 * 64, dtype=torch.uint8), tensors)
    for place, tensor in zip(places, tensors, strict=True):
        place.copy_(tensor)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(places, tensors, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(send(tensors, CPU), tensors, strict=True))


@pytest.mark.launch
def test_a_run_that_must_be_resident_and_does_not_fit_ends_before_it_begins(shard_set, tmp_path):
    settings = {"data.resident": "always", "data.resident_limit": "1kB"}
    command = [sys.executable, str(ROOT / "launch" / "pretrain.py"), "--out", str(tmp_path / "run")]
    command += flags(TINY | settings | {"data.shards": shard_set})
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    said = done.stderr
    assert re.search(r"^error: data.resident: always, but the samples .* take \d+ bytes .* is 1000 ", said, re.M)
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "config.yaml").exists()
