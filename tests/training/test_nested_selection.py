"""What is tested has no part in anything before: another test side, and not one number of the training is another."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_toys import CLASSES, RATE_HZ, make_shards

from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig
from aar_dist.stream.windows import WindowConfig
from aar_dist.training.config import TrackingConfig
from aar_dist.training.finetuning.config import FinetuneConfig, FinetuneTrainConfig
from aar_dist.training.finetuning.finetune import adapt, initial_objective, make_plan
from aar_dist.training.finetuning.split import SplitConfig
from aar_dist.training.finetuning.task import open_task, resolved
from aar_dist.training.ranks import Ranks

TESTED = "s5"


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> tuple[Path, Path]:
    """Six subjects; the same with one whose signal is a hundred times as large and whose labels are all wrong."""
    honest, poisoned = (tmp_path_factory.mktemp(name) for name in ("honest", "poisoned"))
    first = make_shards(honest)
    shown = {f"s{i}": [0, 1, 2] for i in range(6)}
    make_shards(poisoned, classes_of=shown)
    (path,) = (poisoned / "recordings/toy").glob(f"*_{TESTED}_*")
    path.unlink()
    rng = np.random.default_rng(9)
    label = np.repeat(np.resize([2, 0, 1, 1], 24), round(5 * RATE_HZ)).astype(np.int16)
    acc = SensorData(
        values=(100 * rng.normal(size=(len(label), 3)) + 50).astype("<f4"),
        units="g",
        rate_hz=RATE_HZ,
        axes=tuple("xyz"),
    )
    dataset_to_hdf5(
        path.parent, dataset="toy", species="cow", subject=TESTED, sensors={"acc": acc}, label=label, classes=CLASSES
    )
    options = BuildOptions(datasets=("toy",), longest_segment_s=2.0)
    return first, build(poisoned / "recordings", poisoned / "poisoned", options, workers=1).folder


def config(shards: Path, **train: object) -> FinetuneConfig:
    data = DataConfig(shards=[str(shards)], segment_duration=1.0, max_window_length=20, normalize="dataset")
    return FinetuneConfig(
        data=data,
        windows=WindowConfig(),
        split=SplitConfig(test=[f"toy/{TESTED}"], train_share=0.7, validation_share=0.4),
        train=FinetuneTrainConfig(batch_size=16, epochs=2, patience=1, **train),
        tracking=TrackingConfig(mode="disabled"),
    )


def handed_to_training(shards: Path, **train: object) -> dict[str, object]:
    """All that a run is given before and while it trains and selects, but the test side."""
    given = config(shards, **train)
    task = open_task(given)
    settled, head = resolved(given, task)
    objective = initial_objective(settled, head, None)
    told: dict[str, object] = {"head": head, "statistics": settled.data.statistics, "classes": settled.windows.classes}
    told["sides"], told["missing"] = asdict(task.sides), task.missing
    with ExitStack() as stack:
        phases = adapt(objective, settled, None)
        plan = make_plan(settled, task, objective, phases, Ranks(0, 1, 0, 1), stack)
        told |= {name: getattr(plan, name) for name in ("val_every", "save_every", "patience")}
        assert plan.val_stream is not None
        batches = [next(plan.train_stream.batches(p, 16, 16)) for p in range(0, 2 * plan.train_stream.n_segments, 16)]
        batches += [batch for batch, _ in plan.val_stream.evaluation(16, 16)]
        told["batches"] = [torch.cat([b.values.flatten(), b.label, b.key]) for b in batches]
    told["weights"] = list(objective.state_dict().values())
    return told


@pytest.mark.parametrize("train", [{"sampling": "balanced"}, {"class_weights": "inverse"}])
def test_poisoned_test_subjects_change_nothing_that_is_trained_or_selected_by(sets, train):
    honest, poisoned = (handed_to_training(shards, **train) for shards in sets)
    for name, value in honest.items():
        if name in ("batches", "weights"):
            assert all(torch.equal(a, b) for a, b in zip(value, poisoned[name], strict=True)), name
        else:
            assert value == poisoned[name], name
    tests = [open_task(config(shards)).test for shards in sets]
    assert not np.array_equal(tests[0].label, tests[1].label), "or nothing was poisoned"


def test_the_poison_would_show_if_the_tested_subject_trained(sets):
    """The same comparison, of runs that do train on it."""
    given = [config(shards) for shards in sets]
    tasks = [open_task(FinetuneConfig(data=g.data, split=SplitConfig(test=["toy/s0"]))) for g in given]
    assert tasks[0].source.statistics != tasks[1].source.statistics
    assert not np.array_equal(tasks[0].train.label, tasks[1].train.label)
