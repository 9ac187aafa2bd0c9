"""The recipes of PPG: pretrained on two channels, inflated to five, and left with one; as they are typed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from heart_toys import CHANNELS, make_heart_shards
from launching import DEEPSPEED, ROOT, environment, free_port

from aar_dist.base.config import ClassSpec
from aar_dist.evaluation.predict_model import open_predictor
from aar_dist.evaluation.study import open_study
from aar_dist.store.checkpoint import specs
from aar_dist.store.registry import resolve
from aar_dist.training import pretrain
from aar_dist.training.config import PretrainConfig, StoreConfig
from aar_dist.training.finetuning.finetune import initial_objective
from aar_dist.training.finetuning.pretrained import check_architecture, inflation, load_config, source_of
from aar_dist.training.finetuning.task import open_task, resolved

pytestmark = pytest.mark.launch

FEW = ["--tracking.mode=disabled", "--train.max_steps=1", "--train.batch_size=8"]
EACH = """
import json, sys
from aar_dist.base.config import load
from aar_dist.training.config import SCHEMA
from aar_dist.training.finetuning.finetune import finetune
from aar_dist.training.finetuning.pretrained import load_config
from aar_dist.training.pretrain import pretrain
first, *others = json.loads(sys.argv[1])
pretrain(load(SCHEMA, first))
for flags in others:
    finetune(load_config(flags))
"""


def said_by(command: list[str]) -> str:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> dict[str, Path]:
    return {
        "troika": make_heart_shards(tmp_path_factory.mktemp("troika")),
        "but_ppg": make_heart_shards(tmp_path_factory.mktemp("but_ppg"), classes=True),
    }


def settings(recipe: str, shards: dict[str, Path], root: Path, out: Path, kind: str = "finetune") -> list[str]:
    where = [f"--data.shards={shards[recipe]}", f"--store.path={root / 'store'}", f"--out={out}"]
    return [f"--config={ROOT}/configs/{kind}/{recipe}.yaml", *where]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def said(shards, root) -> str:
    """What a step of each recipe prints, one after the other in one process; ``store`` holds their models."""
    pretraining = [*settings("troika", shards, root, root / "run", "pretrain"), *FEW, "--embedding_type=conv"]
    others = [[*settings(of, shards, root, root / of), f"--split.test={of}/01", *FEW] for of in ("troika", "but_ppg")]
    return said_by([sys.executable, "-c", EACH, json.dumps([pretraining, *others])])


@pytest.fixture(scope="module")
def store(said, root) -> Path:
    """Holds troika@1, troika-heart-rate@1 and but-ppg-quality@1."""
    return root / "store"


@pytest.mark.slow
def test_two_ranks_gather_all_channels(shards, tmp_path):
    """At ZeRO-3, with segments that now and then lack the ECG: an embedding is gathered whole, however few of its
    channels are there, or the ranks would wait for each other for ever."""
    launcher = [DEEPSPEED, "--master_port", str(free_port()), "--num_accelerators", "2"]
    flags = [*settings("troika", shards, tmp_path, tmp_path / "run", "pretrain"), *FEW, "--train.max_steps=3"]
    program = str(ROOT / "launch/pretrain.py")
    said_by([*launcher, program, *flags, "--batch_size=2", "--zero_stage=3", "--embedding_type=conv"])
    assert (tmp_path / "run" / "finished").is_file()


def test_pretraining_names_its_channels(store):
    model = specs(resolve("store://troika@1", store).config())[0].init_args
    assert model["channels"] == ["ecg.chest", "ppg"]
    assert model["per_channel"]
    assert model["rename"] == {"ppg.1": "ppg", "ppg.2": "ppg"}


def test_two_channels_become_five(said, store):
    told = "ecg.chest, ppg transferred; acc.x, acc.y, acc.z from the mean of ecg.chest, ppg"
    assert f"channels: {told}" in said
    made = resolve("store://troika-heart-rate@1", store)
    parts = {"transferred": ["ecg.chest", "ppg"], "new": ["acc.x", "acc.y", "acc.z"], "left": []}
    assert made.manifest["inflation"] == {"how": "mean", **parts}
    assert f"- channels: {told}" in (made.path / "card.md").read_text()
    assert made.objective().backbone.channels == ("acc.x", "acc.y", "acc.z", "ecg.chest", "ppg")


def test_its_predictor_knows_which_column_is_which(said, store):
    """The names are those of the recording; one without ECG is told as well."""
    predictor = open_predictor(resolve("store://troika-heart-rate@1", store))
    columns = ("acc.x", "acc.y", "acc.z", "ppg.1", "ppg.2", "ecg.chest")
    assert {*columns} == {*CHANNELS}
    assert columns in predictor.columns
    window = np.random.default_rng(0).normal(size=(2, 200, 6)).astype(np.float32)
    whole, _ = predictor.says(window, 25.0, columns)
    window[..., 5] = np.nan
    without, recorded = predictor.says(window, 25.0, (*columns[:5], None))
    assert recorded.all()
    assert np.isfinite(without).all()
    assert not np.allclose(whole, without)


def test_two_channels_may_become_one(said, store):
    assert "channels: ppg transferred; ecg.chest left behind" in said
    made = resolve("store://but-ppg-quality@1", store)
    assert specs(made.config())[0].init_args["rename"] == {"ppg.intensity": "ppg"}
    assert made.objective().backbone.channels == ("ppg",)


def test_how_channels_start(shards, store, root, tmp_path):
    """Before the first step: transferred, near the mean, as random ones, and from scratch nothing of the stored."""

    def start(*flags: str):
        config = load_config([*settings("troika", shards, root, tmp_path / "run"), "--split.test=troika/01", *flags])
        source = source_of(config)
        check_architecture(config, source)
        config, head = resolved(config, open_task(config))
        assert (inflation(config, source) is None) == config.from_scratch
        backbone = initial_objective(config, head, source).backbone
        return {name: backbone.get_parameter(name).detach() for name in backbone.channel_parameters()}, source

    mean, source = start()
    random, _ = start("--inflate=random")
    scratch, _ = start("--from_scratch")
    stored = {name.removeprefix("backbone."): w for name, w in source.weights().items()}
    assert mean
    for name, weight in mean.items():
        assert torch.equal(weight[3:], stored[name])
        assert torch.equal(random[name][3:], stored[name])
        assert ((weight[:3] - stored[name].mean(0)).abs() < 0.06).all()  # six deviations of the noise
        assert not torch.equal(weight[0], weight[1])
        assert torch.equal(random[name][:3], scratch[name][:3])
    assert not torch.equal(scratch["embedding.patch.0_weight"][3:], stored["embedding.patch.0_weight"])


def test_pretraining_goes_on_with_further_channels(store):
    """The head of the reconstruction stays; without labels a model learns a sensor more."""
    source = resolve("store://troika@1", store)
    stored = specs(source.config())
    channels = ["ecg.chest", "gyr.x", "ppg"]
    model = ClassSpec(stored[0].class_path, {**stored[0].init_args, "channels": channels})
    where = {"init_from": source.reference, "store": StoreConfig(path=str(store))}
    config = PretrainConfig(model=model, objective=stored[1], **where)
    made = pretrain.initial_objective(config, source).state_dict()
    weights = source.weights()
    inflated = "backbone.embedding.patch.3_weight"
    assert torch.equal(made[inflated][[0, 2]], weights[inflated])
    assert (made[inflated][1] - weights[inflated].mean(0)).std().item() == pytest.approx(0.01, rel=0.05)
    assert torch.equal(made["head.weight"], weights["head.weight"])


@pytest.mark.parametrize("recipe", ["troika", "but_ppg"])
def test_the_folds_of_a_recipe_are_understood(recipe, shards, store, root, tmp_path):
    study = open_study([*settings(recipe, shards, root, tmp_path / "folds"), "--n_folds=2"])
    assert {job.kind for job in study.jobs()} >= {"network", "baseline"}
