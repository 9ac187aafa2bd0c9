"""Checkpoints are believed only when they are whole; the newest, the best and the pinned stay."""

import errno
import json
import math
from types import SimpleNamespace

import pytest

from aar_dist.base import storage
from aar_dist.base.config import load
from aar_dist.base.errors import CheckpointError, StorageError
from aar_dist.stream.config import DataConfig
from aar_dist.training import checkpoints, loop, saving
from aar_dist.training.config import SCHEMA, recipe
from aar_dist.training.health.retention import Retention
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import Ranks
from aar_dist.training.run_directory import RunDirectory

START = Progress.start("abc", DataConfig(), seed=1)
LAYOUT = {"zero_stage": 1, "ranks": 2, "precision": "fp32"}


def write(folder, step, val_loss=None, shape=(2, 3)):
    final = folder / checkpoints.name_of(step)
    staging = storage.staging_name(final)
    staging.mkdir(parents=True)
    (staging / "rank_0.pt").write_bytes(b"zero" * step)
    (staging / "rank_1.pt").write_bytes(b"one" * step)
    progress = Progress(**START.to_dict() | {"step": step})
    about = {"architecture": {"w": list(shape)}, "layout": LAYOUT, "progress": progress.to_dict(), "val_loss": val_loss}
    checkpoints.write_manifest(staging, about)
    return checkpoints.publish(staging, final)


def test_the_newest_whole_one_is_found(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2)
    saved, damaged = checkpoints.newest_whole(tmp_path)
    assert (saved.step, damaged) == (2, {})
    assert set(saved.files) == {"rank_0.pt", "rank_1.pt"}


@pytest.mark.parametrize("harm", ["flip", "cut", "lose", "manifest"])
def test_a_damaged_newest_one_gives_way_to_the_one_before(tmp_path, harm):
    write(tmp_path, 1)
    file = write(tmp_path, 2) / ("manifest.json" if harm == "manifest" else "rank_1.pt")
    data = bytearray(file.read_bytes())
    if harm == "flip":
        data[2] ^= 1
        file.write_bytes(data)
    elif harm == "lose":
        file.unlink()
    else:
        file.write_bytes(data[:-2])
    saved, damaged = checkpoints.newest_whole(tmp_path)
    assert saved.step == 1
    ((path, problem),) = damaged.items()
    assert path == file.parent
    assert str(file) in problem
    assert len(checkpoints.complete(tmp_path)) == 2
    checkpoints.disown(damaged)
    assert [p.name for p in checkpoints.complete(tmp_path)] == ["step_00000001"]
    assert checkpoints.newest_whole(tmp_path)[1] == {}


def test_all_damaged_is_an_error(tmp_path):
    (write(tmp_path, 1) / "rank_0.pt").unlink()
    with pytest.raises(CheckpointError, match="every checkpoint"):
        checkpoints.newest_whole(tmp_path)


def test_without_its_marker_it_does_not_exist(tmp_path):
    (write(tmp_path, 3) / checkpoints.COMPLETE).unlink()
    assert checkpoints.newest_whole(tmp_path) == (None, {})
    write(tmp_path, 3)
    assert checkpoints.newest_whole(tmp_path)[0].step == 3


def test_prune_keeps_the_last_the_best_and_the_pinned(tmp_path):
    for step, loss in enumerate([5.0, 1.0, None, 3.0, 2.0, 4.0], start=1):
        write(tmp_path, step, loss)
    (tmp_path / checkpoints.PINNED).write_text("step_00000001\n")
    removed = checkpoints.prune(tmp_path, Retention(2))
    assert [p.name[-1] for p in removed] == ["3", "4"]
    assert [p.name[-1] for p in checkpoints.complete(tmp_path)] == ["1", "2", "5", "6"]


def test_a_validation_loss_that_is_not_finite_is_not_the_best(tmp_path):
    for step, loss in enumerate([math.nan, 1.0, math.nan, 3.0], start=1):
        write(tmp_path, step, loss)
    assert [p.name[-1] for p in checkpoints.prune(tmp_path, Retention(2))] == ["1"]
    assert checkpoints.best(tmp_path).name == "step_00000002"


def test_the_best_one_is_not_taken_if_it_is_damaged(tmp_path):
    for step, loss in enumerate([2.0, 1.0, 3.0], start=1):
        write(tmp_path, step, loss)
    assert checkpoints.chosen(tmp_path).step == 2
    with open(tmp_path / "step_00000002" / "rank_0.pt", "r+b") as file:
        file.write(b"ZERO")
    with pytest.raises(CheckpointError, match=r"rank_0\.pt is damaged.*best by validation"):
        checkpoints.chosen(tmp_path)


def test_it_learns_of_a_validation_though_a_kill_came_after_its_row(tmp_path):
    directory, retention = RunDirectory(tmp_path), Retention(2)
    path = write(directory.checkpoints, 4)
    directory.metrics.write_text('{"step": 4, "loss": 2.0}\n{"step": 4, "val/loss": 0.5}\n')
    train = SimpleNamespace(retention=retention)
    job = SimpleNamespace(validates=lambda step: True, directory=directory, config=SimpleNamespace(train=train))
    loop._catch_up(job, Progress(**START.to_dict() | {"step": 4}), None)
    assert checkpoints.read(path).val_loss == 0.5
    saving.learn(directory, 4, 9.0, retention)
    assert checkpoints.read(path).val_loss == 0.5


def test_another_architecture_is_named(tmp_path):
    saved = checkpoints.read(write(tmp_path, 1))
    checkpoints.check_same_model(saved, {"w": [2, 3]})
    for wanted, said in [
        ({"w": [2, 4]}, r"w is \(2, 3\) there and \(2, 4\) here"),
        ({"w": [2, 3], "v": [1]}, r"v is nothing there and \(1,\) here"),
        ({}, r"w is \(2, 3\) there and nothing here"),
    ]:
        with pytest.raises(CheckpointError, match=said):
            checkpoints.check_same_model(saved, wanted)


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (Progress.start("xyz", DataConfig(), 1), "data.shards"),
        (Progress.start("abc", DataConfig(random_seed=5), 1), "data.random_seed"),
        (Progress.start("abc", DataConfig(segment_duration=5.0), 1), "data.segment_duration"),
        (Progress.start("abc", DataConfig(), 2), "train.seed"),
        (Progress(**START.to_dict() | {"tape": START.tape | {"version": 0}}), "data.version"),
    ],
)
def test_other_data_seed_or_tape_is_refused(other, key):
    with pytest.raises(CheckpointError, match=key):
        other.check_continues(START, "checkpoint")


def test_progress_goes_through_json_and_ignores_what_does_not_matter():
    progress = START.advance(32, applied=True).advance(32, applied=False)
    assert (progress.position, progress.step, progress.skipped) == (64, 2, 1)
    assert Progress.from_dict(json.loads(json.dumps(progress.to_dict()))) == progress
    Progress.start("abc", DataConfig(shards=["x"], reader_threads=3), 1).check_continues(progress, "checkpoint")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--masking_ratio", "0.4"], "objective.masking_ratio 0.5, now it is 0.4"),
        (["--transformer_dropout", "0.2"], "model.transformer_dropout 0.1, now it is 0.2"),
        (["--optim.weight_decay", "0.2"], "optim.weight_decay 0.01, now it is 0.2"),
        (["--gradient_clipping", "2"], "deepspeed.gradient_clipping 0.0, now it is 2.0"),
    ],
)
def test_another_recipe_is_refused(flags, said):
    def begin(*flags):
        config = load(SCHEMA, list(flags))
        return Progress.start("abc", config.data, 1, recipe(config))

    saved = Progress.from_dict(json.loads(json.dumps(begin().to_dict())))
    begin("--batch_size=64", "--val_every=7", "--max_steps=9").check_continues(saved, "checkpoint")
    with pytest.raises(CheckpointError, match=f"checkpoint was written with {said}"):
        begin(*flags).check_continues(saved, "checkpoint")


class FullDisk:
    """An engine whose disk fills while it writes."""

    parameters, layout, checkpoint_bytes = {"w": [2, 3]}, LAYOUT, 10

    def __init__(self, error):
        self.error = error

    def save(self, folder, tag, client_state):
        (folder / tag).mkdir()
        (folder / tag / "rank_0.pt").write_bytes(b"half")
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce] PytorchStreamWriter failed writing file"),
    ],
)
def test_a_disk_that_fills_while_saving_leaves_the_old_ones(tmp_path, error):
    directory = RunDirectory(tmp_path)
    write(directory.checkpoints, 1)
    progress = Progress(**START.to_dict() | {"step": 2})
    with pytest.raises(StorageError, match="disk is full"):
        saving.save(FullDisk(error), directory, Ranks(0, 1, 0, 1), progress, None, Retention(2), None)
    assert [p.name for p in directory.checkpoints.iterdir()] == ["step_00000001"]
    assert checkpoints.newest_whole(directory.checkpoints)[0].step == 1


def test_a_disk_without_room_is_found_before_writing(tmp_path):
    directory = RunDirectory(tmp_path)
    write(directory.checkpoints, 1)
    engine = FullDisk(AssertionError("must not write"))
    engine.checkpoint_bytes = 1 << 60
    with pytest.raises(StorageError, match="disk is full"):
        saving.save(engine, directory, Ranks(0, 1, 0, 1), START, None, Retention(2), None)
