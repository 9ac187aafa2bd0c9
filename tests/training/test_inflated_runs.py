"""The recipes of PPG: pretrained on two channels, inflated to five, and left with one; as they are typed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from heart_toys import CHANNELS, make_heart_shards
from launching import DEEPSPEED, ROOT, environment, free_port

from aar_dist.evaluation.predict_model import open_predictor
from aar_dist.evaluation.study import open_study
from aar_dist.store.checkpoint import specs
from aar_dist.store.registry import resolve
from aar_dist.training.finetuning.finetune import initial_objective
from aar_dist.training.finetuning.pretrained import check_architecture, inflation, load_config, source_of
from aar_dist.training.finetuning.task import open_task, resolved

CONFIGS = ROOT / "configs"
FEW = ["--tracking.mode=disabled", "--train.max_steps=1", "--train.batch_size=8"]


def launched(program: str, *flags: object, ranks: int = 1) -> str:
    command = [sys.executable]
    if ranks > 1:
        command = [DEEPSPEED, "--master_port", str(free_port()), "--num_accelerators", str(ranks)]
    command += [str(ROOT / "launch" / program), *map(str, flags), *FEW]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_heart_shards(tmp_path_factory.mktemp("troika"))


@pytest.fixture(scope="module")
def store(shards, tmp_path_factory) -> Path:
    """Holds troika@1, pretrained for a step by two ranks at ZeRO-3."""
    root = tmp_path_factory.mktemp("pretrained")
    recipe = f"--config={CONFIGS}/pretrain/troika.yaml"
    flags = [recipe, f"--data.shards={shards}", f"--out={root / 'run'}", f"--store.path={root / 'store'}"]
    launched("pretrain.py", *flags, "--zero_stage=3", "--embedding_type=conv", ranks=2)
    return root / "store"


def settings(recipe: str, shards: Path, store: Path, out: Path) -> list[str]:
    recipe = f"--config={CONFIGS}/finetune/{recipe}.yaml"
    return [recipe, f"--data.shards={shards}", f"--store.path={store}", f"--out={out}"]


def test_pretraining_names_its_channels(store):
    model = specs(resolve("store://troika@1", store).config())[0].init_args
    assert model["channels"] == ["ppg", "ecg.chest"] or model["channels"] == ["ecg.chest", "ppg"]
    assert model["rename"] == {"ppg.1": "ppg", "ppg.2": "ppg"}


@pytest.mark.launch
def test_two_channels_become_five(shards, store, tmp_path):
    """On two ranks at ZeRO-3, whose windows lack the ECG now and then, with embeddings that are called for each."""
    flags = [*settings("troika", shards, store, tmp_path / "run"), "--split.test=troika/01"]
    said = launched("finetune.py", *flags, "--zero_stage=3", ranks=2)
    told = "ecg.chest, ppg transferred; acc.x, acc.y, acc.z from the mean of ecg.chest, ppg"
    assert f"channels: {told}" in said
    made = resolve("store://troika-heart-rate@1", store)
    assert made.manifest["inflation"] == {
        "how": "mean", "transferred": ["ecg.chest", "ppg"], "new": ["acc.x", "acc.y", "acc.z"], "left": []
    }  # fmt: skip
    assert f"- channels: {told}" in (made.path / "card.md").read_text()
    assert made.objective().backbone.channels == ("acc.x", "acc.y", "acc.z", "ecg.chest", "ppg")
    predictor = open_predictor(made)
    window = torch.randn(2, 200, 6).numpy()
    said, _ = predictor.says(window, 25.0, tuple(CHANNELS))
    turned, _ = predictor.says(window[..., ::-1].copy(), 25.0, tuple(reversed(CHANNELS)))
    assert said.shape == (2, 1)
    assert not torch.allclose(torch.from_numpy(said), torch.from_numpy(turned)), "the head goes by place"


@pytest.mark.launch
def test_how_channels_start(shards, store, tmp_path):
    """Before the first step: transferred, near the mean, as random ones, and from scratch nothing of the stored."""

    def start(*flags: str):
        config = load_config([*settings("troika", shards, store, tmp_path / "run"), "--split.test=troika/01", *flags])
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
        assert torch.equal(random[name][:3], scratch[name][:3])
        assert not torch.equal(weight[0], weight[1])
    assert not torch.equal(scratch["embedding.patch.0_weight"][3:], stored["embedding.patch.0_weight"])


@pytest.mark.launch
def test_five_channels_may_be_left_with_one(store, tmp_path):
    shards = make_heart_shards(tmp_path, classes=True)
    flags = settings("but_ppg", shards, store, tmp_path / "run")
    said = launched("finetune.py", *flags, "--split.test=but_ppg/01")
    assert "channels: ppg transferred; ecg.chest left behind" in said
    assert (tmp_path / "run" / "y_prob_fold_0.npy").is_file()


@pytest.mark.launch
@pytest.mark.parametrize("recipe", ["troika", "but_ppg"])
def test_the_folds_of_a_recipe_are_understood(recipe, shards, store, tmp_path):
    if recipe == "but_ppg":
        shards = make_heart_shards(tmp_path, classes=True)
    study = open_study([*settings(recipe, shards, store, tmp_path / "folds"), "--n_folds=2"])
    assert {job.kind for job in study.jobs()} == {"network", "baseline"}
    assert {job.method for job in study.jobs()} >= {"scratch"}
