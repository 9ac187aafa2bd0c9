"""Which checkpoints stay, whatever the policy; what kills have left of others; room on the disk told in advance."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_checkpoints import write

from aar_dist.base import storage
from aar_dist.base.config import load
from aar_dist.base.errors import ConfigError
from aar_dist.training import checkpoints, saving
from aar_dist.training.config import SCHEMA, TrainConfig
from aar_dist.training.health.retention import Retention, best
from aar_dist.training.plan import Plan
from aar_dist.training.run_directory import RunDirectory

LOSSES = st.one_of(st.none(), st.floats(0, 10), st.just(float("nan")), st.just(float("inf")))
RUNS = st.dictionaries(st.integers(1, 60), LOSSES, max_size=30)


@given(RUNS, st.sets(st.integers(1, 60)), st.integers(2, 6), st.none() | st.integers(1, 20))
def test_what_is_removed_is_none_of_those_to_keep(losses, pinned, keep_last, keep_every):
    doomed = Retention(keep_last, keep_every).doomed(losses, pinned)
    left = sorted(losses.keys() - set(doomed))
    newest = sorted(losses)[-keep_last:]
    assert set(doomed) <= losses.keys()
    assert set(newest) <= set(left)
    assert not pinned & set(doomed)
    assert best(losses) not in doomed
    assert not [step for step in doomed if keep_every and step % keep_every == 0]
    assert len(left) >= min(2, len(losses))
    # … and nothing stays without a reason.
    reasons = {*newest, *pinned, best(losses), *(s for s in losses if keep_every and s % keep_every == 0)}
    assert set(left) <= reasons


@given(st.integers(1, 40), st.integers(2, 5), st.none() | st.integers(1, 10))
def test_the_most_at_one_time_is_what_a_run_reaches_at_most(total, keep_last, keep_every):
    retention, kept = Retention(keep_last, keep_every), {}
    for step in range(1, total + 1):
        kept[step] = 1.0 / step if step < 3 else None  # the best is an early one
        assert len(kept) <= retention.most(total)
        for doomed in retention.doomed(kept, ()):
            del kept[doomed]


@given(RUNS)
def test_the_best_has_the_lowest_loss(losses):
    known = {step: loss for step, loss in losses.items() if loss is not None and loss < 11}
    assert best(losses) == (min(known, key=lambda step: (known[step], step)) if known else None)


def test_every_so_many_steps_one_stays_for_ever(tmp_path):
    for step in range(1, 10):
        write(tmp_path, step, float(step))
        checkpoints.prune(tmp_path, Retention(2, 3))
    assert [int(path.name[-1]) for path in checkpoints.complete(tmp_path)] == [1, 3, 6, 8, 9]


def test_what_kills_have_left_is_cleared(tmp_path):
    """A removal that was cut short, a checkpoint that never got its marker; one of them is pinned, and stays."""
    for step in (1, 2, 3, 4, 5):
        write(tmp_path, step)
    for step in (1, 2, 5):
        (tmp_path / checkpoints.name_of(step) / checkpoints.COMPLETE).unlink()
    (tmp_path / checkpoints.PINNED).write_text("step_00000002\nno such name\n")
    checkpoints.prune(tmp_path, Retention(2))
    assert sorted(int(path.name[-1]) for path in tmp_path.glob("step_*")) == [2, 3, 4]


@pytest.mark.parametrize(("keep_every", "nearest"), [(700, 500), (30, 500), (1300, 1500)])
def test_steps_that_are_no_checkpoints_cannot_be_kept(keep_every, nearest):
    with pytest.raises(ConfigError, match=rf"train\.keep_every {keep_every} .* nearest that is: {nearest}"):
        replace(TrainConfig(), keep_every=keep_every).retention.check_reached(500)
    replace(TrainConfig(), keep_every=nearest).retention.check_reached(500)


def test_a_plan_with_such_steps_is_refused():
    config = load(SCHEMA, ["--train.keep_every=30", "--train.save_every=20"])
    streams = {"train_stream": None, "val_stream": None, "val_every": 20, "save_every": config.train.save_every}
    with pytest.raises(ConfigError, match="keep_every 30"):
        Plan(config=config, text="", objective=None, phases=(), recipe={}, about="", **streams)


def test_unfinished_work_of_a_killed_run_is_cleared_at_its_next_start(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.prepare("")
    write(directory.checkpoints, 4)
    staging = storage.staging_name(directory.checkpoints / checkpoints.name_of(8))
    staging.mkdir()
    (staging / "rank_0.pt").write_bytes(b"half")
    directory.prepare("")
    assert [path.name for path in directory.checkpoints.iterdir()] == ["step_00000004"]


class SmallEngine:
    checkpoint_bytes = 1_000_000


def test_room_is_told_in_advance(tmp_path):
    assert saving.room_ahead(SmallEngine(), tmp_path, Retention(2), 100) is None
    large = SmallEngine()
    large.checkpoint_bytes = 1 << 50
    assert "up to 14 checkpoints of 1125.9 TB" in saving.room_ahead(large, tmp_path, Retention(2, 10), 100)
    for step in range(1, 5):
        write(tmp_path, step)
    assert saving.room_ahead(large, tmp_path, Retention(2), 100) is None  # those are there already
