"""Values that are no measurements, written into the bytes of a shard after it was built: NaN and Inf are gaps; what is
too large for float32 costs the step that meets it and nothing else, and the recording is named."""

import math
import re

import pytest
from damage import damaged
from launching import losses, run

from aar_dist.store.registry import resolve
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import open_stream
from aar_dist.training.health.monitor import TOLD
from aar_dist.training.metrics import read_rows

STEPS = 24
GAPS = (("cow_f2_ds_0", 0, 200, math.nan), ("cow_f2_ds_0", 200, 400, math.inf), ("cow_f2_ds_0", 400, 600, -math.inf))
HUGE = ("cow_f1_ds_0", 300, 345, 1e38)


def test_nan_and_inf_are_gaps(shard_set, tmp_path):
    """… as the contract of a recording says of NaN; an infinite value the build would have refused."""
    batches = []
    for shards in (shard_set, damaged(shard_set, tmp_path / "set", *GAPS)):
        data = DataConfig(shards=[str(shards)], segment_duration=1.0, max_window_length=50, lanes=16)
        with open_stream(data, "train", origins=True) as stream:
            batches.append(next(stream.batches(0, 512, 512)))
    whole, holed = batches
    inside = [o.recording == "cow_f2_ds_0" and o.start_s + 1 < 600 for o in whole.origin]
    outside = [o.recording != "cow_f2_ds_0" or o.start_s >= 600 for o in whole.origin]
    assert any(inside)
    assert not holed.valid[inside].any()
    assert not holed.values[inside].any()
    assert holed.values[outside].equal(whole.values[outside])


def check(out, shards, settings):
    """Train over them on two ranks."""
    code, said = run(out, shards, {"train.max_steps": STEPS, **settings})
    assert code == 0, said
    skipped = {row["step"]: row for row in read_rows(out / "events.jsonl")}
    assert 1 <= len(skipped) < STEPS / 2
    for step, row in skipped.items():
        assert row["kind"] == "skipped"
        for segment in row["segments"]:
            assert (segment["dataset"], segment["subject"], segment["recording"]) == ("fast", "f1", HUGE[0])
            assert HUGE[1] - 1 <= segment["start_s"] <= HUGE[2]
        in_a_row = next(n for n in range(1, STEPS) if step - n not in skipped)
        line = f"WARNING: step {step} was left out: the loss of {row['n_broken']} of 32 segments"
        assert (line in said) == (in_a_row <= TOLD)  # of a long row the file alone tells all
    rows = losses(out)
    assert [step for step, _, norm in rows if norm is None or math.isinf(norm)] == list(skipped)
    assert all(math.isfinite(loss) for _, loss, _ in rows)
    assert read_rows(out / "metrics.jsonl")[-1]["val/loss"] < 2
    weights = resolve("store://aar@latest", out / "store").weights()
    assert all(value.isfinite().all() for value in weights.values())
    told = [re.findall(r"step +\d+/\d+  loss \S+ +lr \S+ +grad \S+", log(out, rank)) for rank in (0, 1)]
    assert len(told[0]) > STEPS / 4
    assert told[0] == told[1]


def log(out, rank):
    return (out / "log" / f"rank_{rank}.log").read_text()


@pytest.mark.launch
def test_values_that_overflow_cost_their_step_and_are_named(shard_set, tmp_path):
    """At ZeRO-0 in fp32, where DeepSpeed looks at nothing."""
    shards = damaged(shard_set, tmp_path / "set", *GAPS, HUGE)
    check(tmp_path / "run", shards, {"deepspeed.zero_stage": 0, "deepspeed.precision": "fp32"})


@pytest.mark.slow
@pytest.mark.launch
@pytest.mark.parametrize(("stage", "precision"), [(0, "bf16"), (1, "fp32"), (2, "bf16"), (3, "fp32"), (3, "bf16")])
def test_at_every_stage(shard_set, tmp_path, stage, precision):
    shards = damaged(shard_set, tmp_path / "set", *GAPS, HUGE)
    settings = {"deepspeed.zero_stage": stage, "deepspeed.precision": precision, "train.micro_batch_size": 8}
    check(tmp_path / "run", shards, settings)


@pytest.mark.slow
@pytest.mark.launch
def test_a_run_that_gives_up_names_the_worst_recording(shard_set, tmp_path):
    shards = damaged(shard_set, tmp_path / "set", ("cow_f1_ds_0", 0, 900, 1e38))
    code, said = run(tmp_path / "run", shards, {"train.max_skipped_steps": 3})
    assert code == 2
    errors = [line for line in said.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert (
        "3 steps in a row had a loss or gradients that are not finite, worst: fast/cow_f1_ds_0 acc in 3 of 3"
        in errors[0]
    )
