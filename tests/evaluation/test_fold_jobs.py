"""One fold as a job: tried again, named, started on the GPUs it was given."""

from pathlib import Path

import pytest

from aar_dist.base.errors import ConfigError, StorageError
from aar_dist.evaluation import fold_jobs
from aar_dist.evaluation.fold_jobs import FoldJob, carry_out
from aar_dist.training.finetuning.config import FinetuneConfig


@pytest.fixture
def job(tmp_path, monkeypatch) -> FoldJob:
    monkeypatch.setattr(fold_jobs, "PAUSE_S", 0.0)
    return FoldJob(method="net", kind="network", seed=1, fold=0, config=FinetuneConfig(out=str(tmp_path)), retries=2)


def failing(times: int, error: Exception, calls: list[int]):
    """A fold that fails so often, and is done then."""

    def train(config: FinetuneConfig) -> None:
        calls.append(1)
        if len(calls) <= times:
            raise error
        Path(config.out, "finished").write_text("{}")

    return train


@pytest.mark.parametrize(
    ("times", "error", "attempts", "reason"),
    [
        (2, StorageError("no room"), 3, None),
        (3, StorageError("no room"), 3, "no room"),
        (1, RuntimeError("CUDA went\naway"), 2, None),
        (9, RuntimeError("CUDA went\naway"), 3, "RuntimeError: CUDA went away"),
        (1, ConfigError("lr is 0"), 1, "lr is 0"),
    ],
)
def test_a_failure_is_tried_again_unless_it_is_the_configuration(job, monkeypatch, times, error, attempts, reason):
    calls: list[int] = []
    monkeypatch.setattr(fold_jobs, "finetune", failing(times, error, calls))
    outcome = carry_out(job)
    assert (len(calls), outcome.failed) == (attempts, reason)
    assert str(error) in (job.folder / "said.txt").read_text(), "its traceback is kept"


def test_one_that_was_asked_to_stop_stops(job, monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(fold_jobs, "finetune", lambda config: calls.append(1))
    assert carry_out(job).failed == "was asked to stop"
    assert len(calls) == 1


def test_the_launcher_is_left_with_the_gpus_that_ray_chose(job, monkeypatch):
    """Told a number, it takes the first ones of the machine, which another fold has."""
    commands = []

    monkeypatch.setattr(fold_jobs, "run_bound", lambda command, log: commands.append(command) or 0)
    for visible in ("2,3", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        carry_out(FoldJob(**{**vars(job), "ranks": 2, "retries": 0}))
    assert "--num_accelerators" not in commands[0]
    assert commands[1][1:3] == ["--num_accelerators", "2"]
