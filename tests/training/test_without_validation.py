"""Shard sets that lack something: nobody to validate on, recordings too short. The run says so and goes its way."""

import numpy as np
import pytest
from launching import finish, start

from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig
from aar_dist.training.pretrain import left_out, open_streams
from aar_dist.training.ranks import Ranks


@pytest.mark.launch
def test_nothing_to_validate_on(recordings, tmp_path):
    options = BuildOptions(datasets=("slow",), train_ratio=1.0, longest_segment_s=1.0)
    build(recordings, tmp_path / "set", options, workers=1)
    code, said = finish(start(tmp_path / "run", tmp_path / "set", {"train.max_steps": 2}, ranks=1))
    assert code == 0, said
    assert "no validation subjects with the chosen sensors" in said
    assert (tmp_path / "run" / "finished").is_file()


def test_validation_subjects_without_the_chosen_sensor_are_none(recordings, tmp_path):
    """Only ``fast`` has gyroscopes, and all of its subjects train."""
    for name, ratio in (("fast", 1.0), ("slow", 0.5)):
        options = BuildOptions(datasets=(name,), train_ratio=ratio, longest_segment_s=1.0)
        build(recordings, tmp_path / name, options, workers=1)
    sets = [str(tmp_path / name) for name in ("fast", "slow")]
    counts = {}
    for kind in ("acc", "gyr"):
        streams = open_streams(DataConfig(shards=sets, kinds=[kind], segment_duration=1.0), Ranks(0, 1, 0, 1))
        counts[kind] = len(streams)
        for stream in streams:
            stream.close()
    assert counts == {"acc": 2, "gyr": 1}


def test_what_is_not_drawn_from_is_named(tmp_path):
    for name, n_samples in (("short", 30), ("long", 300)):
        acc = SensorData(values=np.ones((n_samples, 1), "<f4"), rate_hz=10.0, units="g", axes=("x",))
        dataset_to_hdf5(tmp_path / "d" / name, dataset=name, species="cow", subject="a", sensors={"acc": acc})
    build(tmp_path / "d", tmp_path / "set", BuildOptions(datasets=("long", "short"), train_ratio=1.0), workers=1)
    data = DataConfig(shards=[str(tmp_path / "set")], segment_duration=5.0)
    streams = open_streams(data, Ranks(0, 1, 0, 1))
    said = list(left_out(data, streams))
    for stream in streams:
        stream.close()
    assert "no recording of short is as long as a segment: it is not drawn from at all" in said
    assert not [line for line in said if "of long" in line]
