"""Choosing settings inside each fold: what is tried, what is chosen, and what a kill leaves."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from finetune_toys import folds_settings
from launching import flags

from aar_dist.base import storage
from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.fold_jobs import TIMING, FoldJob, carry_out
from aar_dist.evaluation.fold_plan import Candidate, Frame, Left, baseline_jobs, network_jobs, probe_jobs
from aar_dist.evaluation.nested.choice import best_of_all, choose
from aar_dist.evaluation.nested.grid import grid, told
from aar_dist.evaluation.nested.wording import choices_table
from aar_dist.evaluation.strategies import candidates
from aar_dist.evaluation.study import open_study
from aar_dist.training.finetuning import candidate
from aar_dist.training.finetuning.config import CrossValidationConfig, FinetuneConfig, FinetuneOptimConfig
from aar_dist.training.finetuning.pretrained import load_config
from aar_dist.training.health.events import Events
from aar_dist.training.tracking import NoTracker
from aar_dist.training.tracking.config import TrackingConfig


def test_every_combination_is_tried_once():
    assert grid({}, "choose") == []
    asked = {"optim.lr": [0.1, 0.2], "freeze": {"unlocked_layers": [1, None]}}
    made = grid(asked, "choose")
    assert [tuple(one.values()) for one in made] == [(0.1, 1), (0.1, None), (0.2, 1), (0.2, None)]
    assert list(made[0]) == ["optim.lr", "freeze.unlocked_layers"]
    assert told(made[1]) == "lr 0.1, unlocked_layers None"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"optim.lr": 0.1}, r"choose\.optim\.lr is 0\.1: give a list of values"),
        ({"optim.lr": [0.1]}, r"choose\.optim\.lr is \[0\.1\]: give a list of values"),
        ({"optim.lr": [0.1, 0.1]}, "names a value twice"),
        ({"optim.lr": list(range(20)), "optim.eps": list(range(20))}, "400 combinations .* 256 at most"),
    ],
)
def test_what_is_no_choice_is_told(asked, said):
    with pytest.raises(ConfigError, match=said):
        grid(asked, "choose")


def trained(root: Path, *losses: float | None) -> list[Path]:
    folders = [root / "candidates" / str(k) for k in range(len(losses))]
    for folder, loss in zip(folders, losses, strict=True):
        (folder / "checkpoints" / "step_1").mkdir(parents=True)
        storage.write_json(folder / "trained.json", {"val_loss": loss, "best_step": 1})
    return folders


SETTINGS = ({"optim.lr": 1}, {"optim.lr": 2}, {"optim.lr": 3})


def test_the_lowest_validation_loss_is_chosen_and_becomes_the_fold(tmp_path):
    folders, into = trained(tmp_path, 0.5, 0.25, None), tmp_path / "runs" / "fold_0"
    assert choose(SETTINGS, folders, into) == 1
    assert (into / "checkpoints" / "step_1").exists()
    assert not folders[1].exists()
    assert not list(folders[0].glob("checkpoints")), "only the chosen one's weights are needed"
    said = json.loads((into / "choice.json").read_text())
    assert (said["by"], said["chosen"]) == ("validation loss", 1)
    assert [one["val_loss"] for one in said["candidates"]] == [0.5, 0.25, None]
    assert said["candidates"][2]["settings"] == {"optim.lr": 3}
    assert choose(SETTINGS, folders, into) == 1, "again, after a kill"


def test_a_kill_before_the_rename_changes_nothing(tmp_path, monkeypatch):
    folders, into = trained(tmp_path, 0.5, 0.25, 0.25), tmp_path / "runs" / "fold_0"
    with monkeypatch.context() as patch:
        patch.setattr("os.rename", lambda old, new: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            choose(SETTINGS, folders, into)
    assert not into.exists()
    assert all((folder / "checkpoints").exists() for folder in folders)
    assert choose(SETTINGS, folders, into) == 1, "the first of equals"


def test_nothing_to_choose_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"no candidate has a finite validation loss \(lr 1; lr 2\)"):
        choose(SETTINGS[:2], trained(tmp_path, None, float("nan")), tmp_path / "fold_0")


def test_the_last_model_takes_what_was_best_over_all_folds():
    def fold(*losses: float | None) -> dict:
        return {"candidates": [{"val_loss": loss} for loss in losses]}

    assert best_of_all([fold(0.1, 0.3), fold(0.9, 0.3)]) == 1
    assert best_of_all([fold(0.1, 0.2), fold(None, 0.9)]) == 1, "one that diverged anywhere is none for all"
    assert best_of_all([fold(float("nan"), 0.2)]) == 1


def test_what_was_chosen_is_told():
    choice = {"chosen": 1, "candidates": [{"settings": {"optim.lr": 0.1}, "val_loss": None}]}
    choice["candidates"].append({"settings": {"optim.lr": 0.01}, "val_loss": 0.43219})
    runs = [{"seed": 1, "fold": 3, "choice": choice}, {"seed": 1, "fold": 4}]
    lines = choices_table([{"name": "net", "runs": runs}, {"name": "majority", "runs": [{"seed": 1, "fold": 0}]}])
    assert lines[-1] == "| net | 1 | 3 | lr 0.01 | lr 0.1: diverged; lr 0.01: 0.4322 |"
    assert choices_table([{"name": "net", "runs": runs[1:]}]) == []


def test_a_candidate_that_diverged_is_never_chosen(tmp_path, monkeypatch):
    config = FinetuneConfig(out=str(tmp_path))
    job = FoldJob(method="net", kind="network", seed=1, fold=0, config=config, settings={"optim.lr": 1}, into="nowhere")
    events = Events(tmp_path / "events.jsonl", NoTracker(tmp_path))

    def gives_up(config, end):
        events.tell("gave_up", "Gave up", "no number", step=3)
        raise ConfigError("5 steps in a row had a loss that is not finite")

    monkeypatch.setattr(candidate, "finetune", gives_up)
    assert carry_out(job).failed is None
    assert json.loads((tmp_path / "trained.json").read_text())["val_loss"] is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"choose": '{"optim.lrr": [1, 2]}'}, r"cross_validation\.choose: unknown flag --optim\.lrr"),
        ({"choose": '{"train.seed": [1, 2]}'}, r"choose sets train\.seed, but all share it"),
        ({"choose": '{"objective.focal_gamma": [0, 2]}'}, "focal_gamma 2 has another loss than focal_gamma 0"),
    ],
)
def test_what_cannot_be_chosen(shards, tmp_path, more, said):
    settings = {"data.shards": shards, "out": tmp_path, "strategies": '{"net": {}}'}
    argv = flags(settings | more)
    plain = load_config(argv)
    with pytest.raises(ConfigError, match=said):
        candidates(argv, plain, plain)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"fractions": [0.5]}, r"fractions must be 1\.0 and shares below, each once, got \[0\.5\]"),
        ({"fractions": [1.0, 0.5, 0.5]}, r"fractions must be 1\.0 and shares below, each once"),
        ({"gpus": 1.5}, r"gpus must be above 0 and below 1, or a whole number, or null, got 1\.5"),
        ({"gpus": 0.5, "ranks": 2}, r"gpus must be whole where a fold has several ranks, got 0\.5"),
        ({"cores": 0}, r"cores must be 1 or more, got 0"),
    ],
)
def test_what_is_refused(more, said):
    with pytest.raises(ConfigError, match=said):
        CrossValidationConfig(**more)


def test_jobs_of_all_axes(tmp_path):
    options = CrossValidationConfig(fractions=[1.0, 0.5, 0.01], seeds=[1, 2], cores=2)
    frame = Frame(out=tmp_path, n_folds=2, folds=tmp_path / "folds.json", options=options)
    recipe = FinetuneConfig(out=str(tmp_path), tracking=TrackingConfig(tags=["barn"]))
    choices = [Candidate({"optim.lr": lr}, replace(recipe, optim=FinetuneOptimConfig(lr=lr))) for lr in (0.1, 0.2, 0.3)]
    jobs = [
        *network_jobs({"net": recipe, "probe": recipe}, {"probe": choices}, frame),
        *probe_jobs(["linear", "random"], recipe, frame),
        *baseline_jobs(["majority", "minirocket"], recipe, frame),
    ]
    assert len(jobs) == (2 * 2 + 1 + 2 + 1 + 2) * 3 * 2, "who draws nothing needs one seed"
    assert len({job.folder for job in jobs}) == len({job.name for job in jobs}) == len(jobs)
    assert {job.config.split.train_share for job in jobs} == {1.0, 0.5, 0.01}
    few = next(job for job in jobs if job.method == "probe" and job.fraction == 0.01)
    assert few.folder == tmp_path / "runs/probe/seed_1/share_1/fold_0"
    assert next(job for job in jobs if job.method == "net").folder == tmp_path / "runs/net/seed_1/fold_0"
    assert [one.config.optim.lr for one in few.candidates] == [0.1, 0.2, 0.3]
    assert few.candidates[2].name == "probe, 1 % of subjects, seed 1, fold 0, lr 0.3"
    tags = few.candidates[2].config.tracking.tags
    assert tags == ["barn", "probe", "seed 1", "fold 0", "1 % of subjects", "candidate"]
    assert few.config.store.name == "finetuned.probe.seed1.fold0.share1"
    assert {one.cores for job in jobs for one in (job, *job.candidates)} == {2}
    left = Left(jobs)
    assert left.n_left == len(left.now) + 12 == len(jobs) + 12 * 3
    assert {job.fraction for job in left.now[:16]} == {1.0}, "long ones first"
    assert {job.kind for job in left.now[-18:]} == {"probe", "baseline"}


def predicted(folder: Path) -> str:
    return storage.sha256(folder / "predictions_fold_0.parquet")


def test_what_is_chosen_is_what_training_it_alone_gives(shards, backbone, tmp_path):
    """Two candidates, the better one tested, nothing trained twice, as if the recipe had named it."""
    quick = {"baselines": "none", "probes": "none", "strategies": '{"net": {}}', "train.epochs": 1}
    said = folds_settings(shards, backbone, tmp_path / "f", **quick)
    study = open_study(flags(said | {"choose": '{"optim.lr": [1.0e-6, 0.01]}'}))
    study.write()
    job = study.jobs()[0]
    left = Left([job])
    assert not left.after(carry_out(job.candidates[0]))
    assert not (job.folder).exists()
    tried = job.candidates[1]
    [last] = left.after(carry_out(tried))
    rows = (tried.folder / "metrics.jsonl").read_text()
    for one in job.candidates:
        storage.write_json(one.folder / TIMING, {"seconds": 1000.0})
    assert carry_out(last).failed is None
    assert storage.read_json(job.folder / TIMING)["seconds"] > 2000, "of all that was tried, and of the test"
    assert (job.folder / "metrics.jsonl").read_text().startswith(rows), "the same run, gone on"
    made = storage.read_json(job.folder / "metrics.json")
    losses = [one["val_loss"] for one in made["choice"]["candidates"]]
    assert (made["choice"]["chosen"], made["val_loss"]) == (1, min(losses))
    assert losses[1] < losses[0]
    assert not (tmp_path / "f" / "candidates" / "net" / "seed_578" / "fold_0" / "0" / "y_true_fold_0.npy").exists()

    plain = open_study(flags(said | {"out": tmp_path / "g", "store.path": tmp_path / "g" / "s", "optim.lr": 0.01}))
    plain.write()
    alone = plain.jobs()[0]
    assert carry_out(alone).failed is None
    assert predicted(alone.folder) == predicted(job.folder)
