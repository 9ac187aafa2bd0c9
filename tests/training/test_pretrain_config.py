"""The configuration of pretraining: the first system's flags and defaults, and its complaints."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aar_dist.base.config import dump, load
from aar_dist.base.errors import ConfigError
from aar_dist.training.config import SCHEMA, DeepSpeedConfig, TrainConfig
from aar_dist.training.engine import check_zero_options

CONFIGS = Path(__file__).parents[2] / "configs"

# Flag of the first system -> its default, where it stands here, and another value.
FLAGS = {
    "data_path": ([], lambda c: c.data.shards, ["x"]),
    "output_dir": ("", lambda c: c.out, "x"),
    "batch_size": (512, lambda c: c.train.batch_size, 64),
    "epochs": (200, lambda c: c.train.epochs, 3),
    "d_embedding": (128, lambda c: c.model.init_args["d_embedding"], 256),
    "n_layers": (4, lambda c: c.model.init_args["n_layers"], 6),
    "transformer_dropout": (0.1, lambda c: c.model.init_args["transformer_dropout"], 0.2),
    "masking_ratio": (0.5, lambda c: c.objective.init_args["masking_ratio"], 0.4),
    "patch_size": (25, lambda c: c.model.init_args["patch_size"], 5),
    "warmup_steps": (4000, lambda c: c.optim.warmup_steps, 100),
    "noam_factor": (1.0, lambda c: c.optim.noam_factor, 0.5),
    "input_mode": ("multi", lambda c: c.model.init_args["input_mode"], "single"),
    "unmasked_loss_weight": (0.0, lambda c: c.objective.init_args["unmasked_loss_weight"], 0.0001),
    "embedding_type": ("linear", lambda c: c.model.init_args["embedding_type"], "conv"),
    "max_window_length": (1000, lambda c: c.model.init_args["max_window_length"], 2000),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_of_the_first_system(name):
    default, read, other = FLAGS[name]
    assert read(load(SCHEMA, [])) == default
    value = other[0] if isinstance(other, list) else other
    assert read(load(SCHEMA, [f"--{name}", str(value)])) == other
    assert read(load(SCHEMA, ["--config", str(CONFIGS / "pretrain" / "aar.yaml")])) == default


@pytest.mark.parametrize("path", [*sorted(CONFIGS.glob("pretrain/*.yaml")), CONFIGS / "quickstart.yaml"], ids=str)
def test_every_recipe_loads_and_reads_back(path, tmp_path):
    made = load(SCHEMA, ["--config", str(path)])
    (tmp_path / "again.yaml").write_text(dump(SCHEMA, made))
    assert load(SCHEMA, ["--config", str(tmp_path / "again.yaml")]) == made


def test_batch_sizes():
    train = TrainConfig(batch_size=64)
    assert train.micro_batches(1) == (64, 1)
    assert train.micro_batches(4) == (16, 1)
    assert replace(train, micro_batch_size=4).micro_batches(4) == (4, 4)
    with pytest.raises(
        ConfigError, match=r"train\.batch_size 64 is not a multiple of 3 ranks; the nearest that is: 63"
    ):
        train.micro_batches(3)
    with pytest.raises(ConfigError, match=r"train\.batch_size 2 is not a multiple of 4 ranks"):
        TrainConfig(batch_size=2).micro_batches(4)


@pytest.mark.parametrize(
    ("world_size", "asked", "made"),
    [(4, 64, (64, 2)), (3, 64, (57, 3)), (9, 50, (19, 3)), (2, 1000, (256, 1)), (1, 7, (4, 128)), (512, 64, (1, 1))],
)
def test_the_micro_batch_is_the_largest_that_divides_a_ranks_share(world_size, asked, made):
    batch_size = 513 if world_size % 3 == 0 else 512
    train = TrainConfig(batch_size=batch_size, micro_batch_size=asked)
    assert train.micro_batches(world_size) == made


@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 300) | st.none())
def test_any_ranks_that_divide_the_batch_will_do(batch_size, world_size, asked):
    train = TrainConfig(batch_size=batch_size, micro_batch_size=asked)
    most = train.most_ranks(world_size)
    assert most <= world_size
    assert not [n for n in range(most + 1, world_size + 1) if batch_size % n == 0]
    micro, accumulation = train.micro_batches(most)
    assert most * micro * accumulation == batch_size
    assert micro <= (asked or batch_size)
    if most < world_size:
        with pytest.raises(ConfigError, match=f"ranks that share it equally: {most}$"):
            train.micro_batches(world_size)


def test_crumbs_are_told():
    prime = TrainConfig(batch_size=4 * 127, micro_batch_size=64)
    assert "share of 127 segments is run 1 at once" in (prime.crumbs(4) or "")
    assert prime.crumbs(127) is None
    assert TrainConfig(batch_size=512, micro_batch_size=64).crumbs(4) is None
    assert TrainConfig(batch_size=513).crumbs(3) is None


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--train.keep_last=1", "train.keep_last"),
        ("--train.batch_size=0", "train.batch_size"),
        ("--optim.warmup_steps=0", "optim.warmup_steps"),
        ("--optim.beta1=1.5", r"optim\.beta1 must be 0 or more and less than 1, got 1\.5"),
        ("--optim.beta2=-1", r"optim\.beta2"),
        ("--optim.eps=-1", r"optim\.eps must be positive, got -1"),
        ('--deepspeed.zero_options={"stage": 2}', r"set deepspeed\.zero_stage"),
        ("--deepspeed.zero_stage=4", "deepspeed.zero_stage"),
        ("--deepspeed.precision=fp16", "deepspeed.precision"),
        ("--store.name=a/b", "store.name"),
        ("--tracking.mode=loud", "tracking.mode"),
    ],
)
def test_values_out_of_range_name_their_key(flag, said):
    with pytest.raises(ConfigError, match=said):
        load(SCHEMA, [flag])


def test_what_deepspeed_does_not_know_names_its_key():
    check_zero_options(DeepSpeedConfig(zero_options={"overlap_comm": False, "stage3_max_live_parameters": 9}))
    for options, said in [({"foo": 1}, "foo: Extra inputs"), ({"sub_group_size": "x"}, "sub_group_size: Input should")]:
        with pytest.raises(ConfigError, match=rf"^deepspeed\.zero_options: {said}"):
            check_zero_options(DeepSpeedConfig(zero_options=options))
