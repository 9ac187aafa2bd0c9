"""Kill a rank in the middle of training, run the same command again: nothing may differ from an uninterrupted run."""

import json
import signal

import pytest
from launching import finish, losses, run, signal_at_step, start, validations

from aar_dist.base.storage import sha256
from aar_dist.store.checkpoint import WEIGHTS
from aar_dist.training.metrics import read_rows

pytestmark = pytest.mark.launch

ACCUMULATED = {"train.micro_batch_size": 8}


@pytest.mark.parametrize(
    ("stage", "more", "then"),
    [
        pytest.param(1, {}, {}, marks=pytest.mark.slow),  # tests/cluster/test_chaos.py kills at this stage
        (2, ACCUMULATED, {"data.resident": "always"}),  # it goes on with segments cut on the device
        (3, {"deepspeed.zero_options": '{"stage3_param_persistence_threshold": 0}'}, {}),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, shard_set, stage, more, then):
    settings = {"deepspeed.zero_stage": stage, **more}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole, shard_set, settings)[0] == 0

    launch = start(broken, shard_set, settings)
    signal_at_step(launch, broken, 10, rank=1, number=signal.SIGKILL)
    code, said = finish(launch)
    assert code != 0
    assert not (broken / "finished").exists()
    assert "Traceback" not in said  # what rank 0 says depends on who notices first, it or the launcher
    reached = losses(broken)[-1][0]
    assert 10 <= reached < 24

    code, said = run(broken, shard_set, settings | then)
    assert code == 0
    assert "goes on from step" in said
    logs = [(out / "log" / "rank_1.log").read_text().count("are resident on cpu") for out in (whole, broken)]
    assert logs == [0, 2 * len(then)]  # the splits for training and validation
    assert losses(broken) == losses(whole)
    assert [row["step"] for row in read_rows(broken / "metrics.jsonl")] == [
        row["step"] for row in read_rows(whole / "metrics.jsonl")
    ]
    assert validations(broken) == validations(whole)
    weights = [sha256(out / "store" / "models" / "aar" / "1" / WEIGHTS) for out in (whole, broken)]
    assert weights[0] == weights[1]


def test_asked_to_stop_it_saves_agrees_and_goes_on(tmp_path, shard_set):
    out = tmp_path / "run"
    settings = {"train.save_every": 1000, "train.max_steps": 60}
    launch = start(out, shard_set, settings)
    signal_at_step(launch, out, 5, rank=1, number=signal.SIGTERM)
    code, said = finish(launch)
    assert code == 0
    assert "stopped at step" in said
    assert not (out / "finished").exists()
    first = losses(out)[-1][0]

    # As the terminal does on Ctrl-C: to the launcher and to every rank.
    launch = start(out, shard_set, settings, own_group=True)
    signal_at_step(launch, out, first + 5, rank=None, number=signal.SIGINT)
    said = finish(launch)[1]
    stopped = losses(out)[-1][0]
    assert first + 5 <= stopped < 60
    assert f"stopped at step {stopped} and saved" in said
    assert 'pretrain.py", line' not in said  # the launcher itself prints a traceback

    code, said = run(out, shard_set, settings)
    assert code == 0
    assert f"goes on from step {stopped}" in said
    assert [step for step, *_ in losses(out)] == list(range(1, 61))
    assert json.loads((out / "finished").read_text())["step"] == 60
    code, said = run(out, shard_set, settings)
    assert code == 0
    assert "is finished" in said
