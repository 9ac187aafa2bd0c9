"""One fold as a job: tried again, named, started on the GPUs it was given."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from finetune_toys import folds_settings
from launching import flags

from aar_dist.base.errors import ConfigError, StorageError
from aar_dist.evaluation import fold_jobs
from aar_dist.evaluation.arrays import window_arrays
from aar_dist.evaluation.fold_jobs import FoldJob, carry_out
from aar_dist.evaluation.study import open_study
from aar_dist.stream.windows import open_windows
from aar_dist.training.finetuning.config import FinetuneConfig
from aar_dist.training.finetuning.task import open_task
from aar_dist.training.run_directory import RunDirectory

HOLDER = """
import sys
from pathlib import Path
from aar_dist.training.run_directory import RunDirectory
directory = RunDirectory(Path(sys.argv[1]))
with directory.lock():
    print("held", flush=True)
    sys.stdin.readline()
    directory.finish({})
"""


@pytest.fixture
def job(tmp_path) -> FoldJob:
    return FoldJob(method="net", kind="network", seed=1, fold=0, config=FinetuneConfig(out=str(tmp_path)))


def failing(error: Exception):
    def train(config: FinetuneConfig) -> None:
        raise error

    return train


@pytest.mark.parametrize(
    ("error", "reason", "again"),
    [
        (StorageError("no room"), "no room", True),
        (RuntimeError("CUDA went\naway"), "RuntimeError: CUDA went away", True),
        (ConfigError("lr is 0"), "lr is 0", False),
    ],
)
def test_a_failure_may_be_tried_again_unless_it_is_the_configuration(job, monkeypatch, error, reason, again):
    monkeypatch.setattr(fold_jobs, "finetune", failing(error))
    outcome = carry_out(job)
    assert (outcome.failed, outcome.again) == (reason, again)
    assert str(error) in (job.folder / "said.txt").read_text(), "its traceback is kept"


def test_one_that_was_asked_to_stop_stops(job, monkeypatch):
    monkeypatch.setattr(fold_jobs, "finetune", lambda config: None)
    outcome = carry_out(job)
    assert (outcome.failed, outcome.again) == ("was asked to stop", False)


def test_a_folder_that_another_process_holds_is_waited_for(job, monkeypatch):
    """A machine that was given up may live: its process is done first, and nothing is trained a second time."""
    monkeypatch.setattr(fold_jobs, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(fold_jobs, "finetune", failing(AssertionError("nobody else may train")))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(job.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(carry_out, job)
        time.sleep(0.3)
        assert not outcome.done()
        holder.communicate("finish\n")
        assert outcome.result(timeout=60).failed is None


def test_a_holder_that_hangs_is_named(job, monkeypatch):
    monkeypatch.setattr(fold_jobs, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(fold_jobs, "HELD_PATIENCE_S", 0.2)
    with RunDirectory(job.folder).lock():
        outcome = carry_out(job)
    assert "is in use by process" in outcome.failed
    assert outcome.again


def test_the_launcher_is_left_with_the_gpus_that_ray_chose(job, monkeypatch):
    """Told a number, it takes the first ones of the machine, which another fold has."""
    commands = []

    monkeypatch.setattr(fold_jobs, "run_bound", lambda command, log: commands.append(command) or 0)
    for visible in ("2,3", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        carry_out(replace(job, ranks=2))
    assert "--num_accelerators" not in commands[0]
    assert commands[1][1:3] == ["--num_accelerators", "2"]


def test_a_baseline_is_given_windows_that_are_scaled_by_those_who_train(shards, backbone, tmp_path, monkeypatch):
    study = open_study(flags(folds_settings(shards, backbone, tmp_path / "f", **{"data.normalize": "dataset"})))
    study.write()
    job = next(job for job in study.jobs() if job.method == "majority")
    given = []

    def arrays(source, *rest):
        given.append(source.statistics)
        return window_arrays(source, *rest)

    monkeypatch.setattr(fold_jobs, "window_arrays", arrays)
    assert carry_out(job).failed is None
    assert given == [open_task(job.config).source.statistics]
    assert given != [open_windows(job.config.data, job.config.windows)[0].statistics]
