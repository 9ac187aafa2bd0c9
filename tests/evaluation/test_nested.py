"""Choosing settings inside each fold: what is tried, what is chosen, and what a kill leaves."""

import json
from pathlib import Path

import pytest
from finetune_toys import folds_settings
from launching import flags

from aar_dist.base import storage
from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.fold_jobs import carry_out
from aar_dist.evaluation.fold_plan import Left
from aar_dist.evaluation.nested.choice import best_of_all, choose
from aar_dist.evaluation.nested.grid import grid, told
from aar_dist.evaluation.study import open_study
from aar_dist.training.finetuning import candidate
from aar_dist.training.health.events import Events
from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.tracking import NoTracker


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


def test_a_candidate_that_diverged_is_never_chosen(tmp_path, monkeypatch, shards, backbone):
    study = open_study(flags(folds_settings(shards, backbone, tmp_path / "f", choose='{"optim.lr": [1, 2]}')))
    job = study.jobs()[0].candidates[0]
    directory = RunDirectory.of(job.config.out)

    def gives_up(config, end):
        Events(directory.events, NoTracker(directory.root)).tell("gave_up", "Gave up", "no number", step=3)
        raise ConfigError("5 steps in a row had a loss that is not finite")

    monkeypatch.setattr(candidate, "finetune", gives_up)
    assert carry_out(job).failed is None
    assert json.loads((job.folder / "trained.json").read_text())["val_loss"] is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"choose": '{"optim.lrr": [1, 2]}'}, r"cross_validation\.choose: unknown flag --optim\.lrr"),
        ({"choose": '{"optim.lr": [1, 0]}'}, r"cross_validation\.choose: optim\.lr must be positive, got 0"),
        ({"choose": '{"train.seed": [1, 2]}'}, r"choose sets train\.seed, but all share it"),
        ({"choose": '{"train.class_weights": ["none", "inverse"]}'}, "class_weights inverse has another loss than"),
        ({"choose": '{"objective.focal_gamma": [0, 2]}'}, "focal_gamma 2 has another loss than focal_gamma 0"),
        ({"strategies": '{"a": {"choose": {"optim.lr": 3}}}'}, r"strategies\.a\.choose\.optim\.lr is 3: give a list"),
        ({"fractions": "[0.5]"}, r"fractions must be 1\.0 and shares below, each once, got \[0\.5\]"),
        ({"fractions": "[1.0, 0.5, 0.5]"}, r"fractions must be 1\.0 and shares below, each once"),
        ({"gpus": 1.5}, r"gpus must be above 0 and below 1, or a whole number, or null, got 1\.5"),
        ({"gpus": 0.5, "ranks": 2}, r"gpus must be whole where a fold has several ranks, got 0\.5"),
    ],
)
def test_what_is_refused(shards, backbone, tmp_path, more, said):
    with pytest.raises(ConfigError, match=said):
        open_study(flags(folds_settings(shards, backbone, tmp_path / "f", **more)))


def test_jobs_of_all_axes(shards, backbone, tmp_path):
    own = {"pretrained": {}, "probe": {"freeze.freeze_backbone": True, "choose": {"optim.lr": [0.1, 0.2, 0.3]}}}
    more = {"fractions": "[1.0, 0.5, 0.01]", "seeds": "[1, 2]", "choose": '{"optim.lr": [0.001, 0.002]}'}
    more |= {"strategies": json.dumps(own), "probes": "none", "tracking.tags": '["barn"]', "cores": 2}
    study = open_study(flags(folds_settings(shards, backbone, tmp_path / "f", **more)))
    jobs = study.jobs()
    assert (
        len({job.folder for job in jobs}) == len({job.name for job in jobs}) == len(jobs) == 2 * 3 * 2 * 2 + 2 * 3 * 2
    )
    few = next(job for job in jobs if job.method == "probe" and job.fraction == 0.01)
    assert few.folder == tmp_path / "f/runs/probe/seed_1/share_1/fold_0"
    assert few.config.split.train_share == 0.01
    assert [one.config.optim.lr for one in few.candidates] == [0.1, 0.2, 0.3]
    assert few.candidates[2].name == "probe, 1 % of subjects, seed 1, fold 0, lr 0.3"
    assert few.candidates[2].config.tracking.tags == [
        "barn",
        "probe",
        "seed 1",
        "fold 0",
        "1 % of subjects",
        "candidate",
    ]
    whole = next(job for job in jobs if job.method == "pretrained")
    assert whole.folder == tmp_path / "f/runs/pretrained/seed_1/fold_0"
    assert [one.config.optim.lr for one in whole.candidates] == [0.001, 0.002]
    assert {one.cores for job in jobs for one in (job, *job.candidates)} == {2}
    left = Left(jobs)
    assert len(left.now) == 12 * 2 + 12 * 3 + 12, "candidates and baselines"
    assert left.n_left == len(left.now) + 24
    assert [job.fraction for job in left.now[:20]] == [1.0] * 20, "long ones first"
    assert left.now[-1].kind == "baseline"


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
    assert carry_out(last).failed is None
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
