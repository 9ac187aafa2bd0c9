"""A shard set whose subjects all train: the run says so and goes its way."""

import pytest
from launching import finish, start

from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig
from aar_dist.training.pretrain import open_streams
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
