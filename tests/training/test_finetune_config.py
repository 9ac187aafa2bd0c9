"""The configuration of fine-tuning: the first system's flags and defaults, and what follows from a stored model."""

from pathlib import Path

import pytest
from finetune_toys import publish_backbone

from aar_dist.base.config import dump, load
from aar_dist.base.errors import CheckpointError, ConfigError
from aar_dist.training.finetuning.config import SCHEMA
from aar_dist.training.finetuning.pretrained import check_architecture, load_config, pinned, source_of
from aar_dist.training.patience import Patience

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "finetune").glob("*.yaml"))

# Flag of the first system -> its default, where it stands here, and another value.
FLAGS = {
    "data_path": ([], lambda c: c.data.shards, ["x"]),
    "output_dir": ("", lambda c: c.out, "x"),
    "pretrained_model_path": (None, lambda c: c.init_from, "x"),
    "batch_size": (128, lambda c: c.train.batch_size, 64),
    "epochs": (50, lambda c: c.train.epochs, 3),
    "lr": (1e-4, lambda c: c.optim.lr, 0.001),
    "d_embedding": (128, lambda c: c.model.init_args["d_embedding"], 256),
    "n_layers": (4, lambda c: c.model.init_args["n_layers"], 6),
    "patch_size": (25, lambda c: c.model.init_args["patch_size"], 5),
    "n_classes": (None, lambda c: c.n_classes, 8),
    "fold": (0, lambda c: c.split.fold, 3),
    "freeze_backbone": (False, lambda c: c.freeze.freeze_backbone, True),
    "unlocked_layers": (0, lambda c: c.freeze.unlocked_layers, 2),
    "avg_pool": (False, lambda c: c.avg_pool, True),
    "input_mode": ("multi", lambda c: c.model.init_args["input_mode"], "single"),
    "embedding_type": ("linear", lambda c: c.model.init_args["embedding_type"], "conv"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_of_the_first_system(name):
    default, read, other = FLAGS[name]
    assert read(load(SCHEMA, [])) == default
    value = other[0] if isinstance(other, list) else other
    assert read(load(SCHEMA, [f"--{name}", str(value).lower() if value is True else str(value)])) == other
    if other is True:
        assert read(load(SCHEMA, [f"--{name}"])) is True
        assert read(load(SCHEMA, [f"--{name}", "--batch_size", "64"])) is True


def test_all_subjects_are_a_fold():
    assert load(SCHEMA, ["--fold", "all"]).split.fold == "all"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_recipe_loads_and_reads_back(path, tmp_path):
    made = load(SCHEMA, ["--config", str(path)])
    assert made.init_from
    (tmp_path / "again.yaml").write_text(dump(SCHEMA, made))
    assert load(SCHEMA, ["--config", str(tmp_path / "again.yaml")]) == made
    assert made.train.patience


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--lr", "0"], "optim.lr must be positive"),
        (["--patience", "0"], "train.patience must be 1 or more"),
        (["--unlocked_layers", "-1"], "freeze.unlocked_layers must be 0 or more"),
        (["--freeze_backbone", "--unlocked_layers", "1"], "give one of them"),
        (["--folds", "f.json", "--test", "a/b"], "exclude each other"),
        (["--validation_share", "1"], "split.validation_share must lie between"),
        (["--fold", "-1"], "split.fold must be 0 or more"),
        (["--fold", "some"], "split.fold"),
        (["--unlocked_layer", "1"], r"did you mean freeze\.unlocked_layers\?"),
        (["--objective.n_classes", "3"], r"unknown flag --objective\.n_classes"),
    ],
)
def test_bad_values_name_their_key(flags, said):
    with pytest.raises(ConfigError, match=said):
        load(SCHEMA, flags)


def test_the_architecture_is_the_stored_one(tmp_path):
    source = publish_backbone(tmp_path)
    config = load_config(["--init_from", str(source.path)])
    assert config.model.init_args["n_layers"] == 2
    assert config.model.init_args["max_window_length"] == config.data.max_window_length == 20
    assert config.data.segment_duration == 1.0
    check_architecture(config, source)
    same = load_config(["--init_from", str(source.path), "--n_layers", "2", "--segment_duration", "0.5"])
    check_architecture(same, source)
    assert same.data.segment_duration == 0.5


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("d_embedding", "128", "model.d_embedding is 128, but .* has 64: the architecture is read"),
        ("n_layers", "4", "model.n_layers is 4, but .* has 2"),
        ("patch_size", "4", "model.patch_size is 4, but .* has 5"),
        ("input_mode", "single", "model.input_mode is single, but .* has multi"),
        ("max_window_length", "40", "data.max_window_length is 40, but .* has 20"),
    ],
)
def test_a_contradicting_flag_is_an_error(tmp_path, flag, value, said):
    source = publish_backbone(tmp_path)
    with pytest.raises(ConfigError, match=said):
        check_architecture(load_config(["--init_from", str(source.path), f"--{flag}", value]), source)


def test_a_run_stays_with_the_version_it_began_with(tmp_path):
    publish_backbone(tmp_path / "store")
    flags = [
        "--init_from",
        "store://toy@latest",
        "--store.path",
        str(tmp_path / "store"),
        "--out",
        str(tmp_path / "run"),
    ]
    config = load_config(flags)
    begun = pinned(config, source_of(config))
    assert begun.init_from == "store://toy@1"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(dump(SCHEMA, begun))
    publish_backbone(tmp_path / "store", n_layers=1)
    again = load_config(flags)
    assert pinned(again, source_of(again)) == begun
    elsewhere = load_config([*flags, "--out", str(tmp_path / "other")])
    assert source_of(elsewhere).version == 2


def test_a_missing_version_and_a_flipped_byte(tmp_path):
    source = publish_backbone(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no version 7 of 'toy'; it has 1"):
        load_config(["--init_from", "store://toy@7", "--store.path", str(tmp_path)])
    with pytest.raises(CheckpointError, match="has no model 'none'; it has toy"):
        load_config(["--init_from", "store://none@latest", "--store.path", str(tmp_path)])
    file = source.path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_config(["--init_from", str(source.path)])


def test_patience():
    assert not Patience(None, [1.0, 2.0, 3.0]).spent
    patience = Patience(2, [3.0, float("nan"), 2.0, 2.5])
    assert not patience.spent
    patience.see(None)
    assert patience.spent
    assert not Patience(2, [3.0, 2.0, 2.5, 1.9]).spent
    assert Patience(2, [3.0, 3.0, 3.0]).spent
