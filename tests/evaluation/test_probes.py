"""Probes: a plain computation says the same, the validation side chooses, and nothing of the test side leaks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as sk
import torch
from finetune_toys import folds_settings, publish_backbone
from launching import flags
from sklearn.linear_model import LogisticRegression

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation import embedded as kept
from aar_dist.evaluation.fold_jobs import FoldJob, carry_out
from aar_dist.evaluation.in_folds import probe_in_fold
from aar_dist.evaluation.probes import NEIGHBOURS, STRENGTHS, Side, chosen, knn, linear, probe
from aar_dist.evaluation.study import Study, open_study
from aar_dist.store.registry import resolve
from aar_dist.stream.windows import window_stream
from aar_dist.training.finetuning.task import open_task


def side(n: int, seed: int, *, classes: int = 3, noise: float = 1.0) -> Side:
    """A direction for each class, the others noise."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n)
    return Side((np.eye(8)[label] * 4 + noise * rng.normal(size=(n, 8))).astype("f4"), label)


@pytest.mark.parametrize("name", ["linear", "knn"])
def test_classes_are_told_apart(name):
    train, validation, test = side(200, 1), side(60, 2), side(80, 3)
    said = probe(name, train, validation, 5).say(test.vectors)
    assert said.shape == (80, 5)
    assert said.dtype == np.float32
    np.testing.assert_allclose(said.sum(1), 1, rtol=1e-5)
    assert not said[:, 3:].any(), "what the train side lacks is never said"
    assert (said.argmax(1) == test.label).mean() > 0.9
    again = probe(name, train, validation, 5).say(test.vectors)
    np.testing.assert_array_equal(said, again)


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_regression_is_scikit_learns(classes):
    train, test = side(150, 1, classes=classes, noise=3.0), side(40, 2)
    for strength, say in linear(train, classes, "balanced"):
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000).fit(train.vectors, train.label)
        np.testing.assert_allclose(say(test.vectors), model.predict_proba(test.vectors), atol=2e-3)


@pytest.mark.parametrize("weight", [None, "balanced"])
def test_neighbours_are_those_of_a_plain_search(weight):
    train, test = side(120, 1, noise=3.0), side(30, 2, noise=3.0)
    a, b = (s.vectors / np.linalg.norm(s.vectors, axis=1, keepdims=True) for s in (train, test))
    near, counts = np.argsort(-(b @ a.T), axis=1), np.bincount(train.label)
    for k, say in knn(train, 3, weight):
        votes = np.zeros((30, 3))
        for i in range(30):
            for label in train.label[near[i, : int(k)]]:
                votes[i, label] += 1 / counts[label] if weight else 1
        np.testing.assert_allclose(say(test.vectors), votes / votes.sum(1, keepdims=True), atol=1e-5)
    assert [k for k, _ in knn(side(7, 1), 3, None)] == [k for k in NEIGHBOURS if k <= 7]


@pytest.mark.parametrize("name", ["linear", "knn"])
def test_the_validation_side_chooses(name):
    train, test = side(100, 1, noise=4.0), side(300, 3, noise=4.0)
    made = probe(name, train, test, 3)
    losses = {float(k): v for k, v in made.chosen.items() if k != "chosen"}
    assert made.chosen["chosen"] == min(losses, key=lambda k: losses[k])
    brier = ((made.say(test.vectors) - np.eye(3)[test.label]) ** 2).sum(1).mean()
    assert brier == pytest.approx(min(losses.values()), abs=1e-6)
    nobody = Side(test.vectors[:0], test.label[:0])
    middle = probe(name, train, nobody, 3).chosen
    assert middle == {"chosen": sorted(losses)[len(losses) // 2]}


@pytest.mark.parametrize("name", ["linear", "knn"])
def test_targets_have_probes_too(name):
    def valued(of: Side) -> Side:
        return Side(of.vectors, (of.vectors[:, 0] * 3 + 70).astype("f4"))

    train, validation, test = (valued(side(n, n)) for n in (300, 60, 80))
    said = probe(name, train, validation, None).say(test.vectors)
    assert said.shape == (80,)
    assert sk.r2_score(test.label, said) > (0.99 if name == "linear" else 0.5)


def test_one_class_alone_is_said_always():
    train = side(20, 1, classes=1)
    for name in ("linear", "knn"):
        assert set(probe(name, train, train, 3).say(side(9, 2).vectors).argmax(1)) == {0}


def test_what_is_asked_for():
    assert chosen(["auto"], pretrained=True) == ("linear", "knn")
    assert chosen(["auto"], pretrained=False) == chosen(["none"], pretrained=True) == ()
    for asked, pretrained, said in (
        (["forest"], True, "no probe is called 'forest'; there are linear, knn, random"),
        (["knn", "knn"], True, "knn is named twice"),
        (["auto", "knn"], True, "auto stands alone"),
        (["knn"], False, "knn looks at a stored model; name one with init_from"),
    ):
        with pytest.raises(ConfigError, match=said):
            chosen(asked, pretrained=pretrained)


@pytest.fixture(scope="module")
def study(shards, backbone, tmp_path_factory) -> Study:
    more = {"probes": '["linear", "knn", "random"]', "seeds": "[1, 2]"}
    made = open_study(flags(folds_settings(shards, backbone, tmp_path_factory.mktemp("study") / "f", **more)))
    made.write()
    return made


def probing(study: Study) -> list[FoldJob]:
    return [job for job in study.jobs() if job.kind == "probe"]


def test_probes_are_jobs_of_the_folds(study):
    jobs = probing(study)
    assert [(j.method, j.seed, j.fold) for j in jobs] == [
        *((name, 1, fold) for name in ("linear_probe", "knn_probe") for fold in (0, 1)),
        *(("random_probe", seed, fold) for seed in (1, 2) for fold in (0, 1)),
    ]
    assert [carry_out(job).failed for job in jobs] == [None] * len(jobs)
    told = json.loads((jobs[0].folder / "metrics.json").read_text())
    assert (told["method"], told["seed"]) == ("linear_probe", 1)
    assert told["accuracy"] > 0.8
    assert told["validation"]["chosen"] in STRENGTHS
    assert set(pq.read_table(jobs[0].folder / "validation_fold_0.parquet")["subject"].to_pylist()) == set(
        open_task(jobs[0].config).sides.validation
    )
    assert len(list((study.out / "embedded").glob("*.npy"))) == 3, "one of the stored model, two of random weights"
    assert not list(study.out.rglob("*.staging*"))


def test_the_embeddings_are_moments_of_the_tokens_and_are_kept(study, monkeypatch, tmp_path):
    job = probing(study)[0]
    task = open_task(job.config)
    vectors = kept.embedded(job.config, task, tmp_path)
    model = resolve(str(job.config.init_from)).objective().backbone
    with window_stream(study.source, study.table, study.config.data, shuffle=False) as stream:
        batch, _ = next(stream.evaluation(50, 50))
    tokens = model.encode(batch).view(50, 3, -1, model.d_embedding).detach()
    both = torch.cat([tokens.mean(2), tokens.std(2, correction=0)], dim=2)
    np.testing.assert_allclose(vectors[:50], both.flatten(1).numpy(), atol=2e-3)
    assert len(vectors) == len(study.table)
    monkeypatch.setattr(kept, "_vectors", None)
    np.testing.assert_array_equal(kept.embedded(job.config, task, tmp_path), vectors)
    centred = replace(job.config, data=replace(job.config.data, normalize="centre"))
    with pytest.raises(TypeError):
        kept.embedded(centred, task, tmp_path)


def test_a_probe_learns_from_its_train_side_alone(study, monkeypatch, tmp_path):
    """Labels of the test side may be anything; so may the vectors, but for what is said of them."""
    job = probing(study)[0]
    before = probe_in_fold("linear", job.config, tmp_path / "a").test
    task = open_task(job.config)
    assert set(before.table.subject.tolist()) == set(task.sides.test)
    real = kept.embedded(job.config, task, tmp_path / "a")
    where = np.isin(study.table.subject, task.sides.test)
    shifted = np.where(where[:, None] & (np.cumsum(where) > 1)[:, None], 1e3, real).astype("f4")
    monkeypatch.setattr("aar_dist.evaluation.in_folds.embedded", lambda *given: shifted)
    after = probe_in_fold("linear", job.config, tmp_path / "a").test
    np.testing.assert_array_equal(after.said[0], before.said[0])
    assert not np.array_equal(after.said[1:], before.said[1:])


def test_a_model_that_learned_labels_of_a_tested_animal_is_refused(shards, tmp_path):
    path = Path(publish_backbone(tmp_path / "store").path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["split"] = {"train": ["toy/s0"], "validation": [], "test": []}
    (path / "manifest.json").write_text(json.dumps(manifest))
    said = folds_settings(shards, str(path), tmp_path / "f", strategies='{"scratch": {"from_scratch": true}}')
    open_study(flags(said))
    with pytest.raises(ConfigError, match="tests toy/s0, whose labels store://toy@1 has"):
        open_study(flags(said | {"probes": "linear"}))
