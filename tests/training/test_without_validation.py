"""A shard set whose subjects all train: the run says so and goes its way."""

import pytest
from launching import finish, start

from aar_dist.shards.build import BuildOptions, build


@pytest.mark.launch
def test_nothing_to_validate_on(recordings, tmp_path):
    options = BuildOptions(datasets=("slow",), train_ratio=1.0, longest_segment_s=1.0)
    build(recordings, tmp_path / "set", options, workers=1)
    code, said = finish(start(tmp_path / "run", tmp_path / "set", {"train.max_steps": 2}, ranks=1))
    assert code == 0, said
    assert "no validation subjects" in said
    assert (tmp_path / "run" / "finished").is_file()
