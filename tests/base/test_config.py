"""Loading configuration: files, flags, names of the first system, and complaints."""

from dataclasses import dataclass, field

import pytest

from aar_dist.base.config import Choice, ClassSpec, Schema, dump, instantiate, load
from aar_dist.base.errors import ConfigError


class Engine:
    pass


class Petrol(Engine):
    def __init__(self, tank: str, *, size_l: float = 2.0, window: int = 7, note: str | None = None) -> None:
        self.tank, self.size_l, self.window, self.note = tank, size_l, window, note


class Steam(Engine):
    def __init__(self, tank: str, *, boilers: int = 1) -> None:
        self.tank, self.boilers = tank, boilers


@dataclass(frozen=True, kw_only=True)
class Data:
    shards: list[str] = field(default_factory=list)
    window: int = 7
    sensors: str | list[str] = "each"
    only: list[str] | None = None
    seeds: list[int] = field(default_factory=lambda: [1])

    def __post_init__(self) -> None:
        if self.window <= 0:
            raise ConfigError(f"data.window must be positive, got {self.window}")


@dataclass(frozen=True, kw_only=True)
class Train:
    batch_size: int = 512
    seed: int | None = None
    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Config:
    out: str = "x"
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    engine: ClassSpec = field(default_factory=lambda: ClassSpec("Petrol"))


SCHEMA = Schema(
    Config,
    choices={"engine": Choice(Engine, f"{__name__}.Petrol", given=("tank",))},
    links={"engine.window": "data.window"},
    aliases={"--data_path": "data.shards"},
)


def config(tmp_path, text, *flags):
    (tmp_path / "c.yaml").write_text(text)
    return load(SCHEMA, ["--config", str(tmp_path / "c.yaml"), *flags])


def test_defaults_files_and_flags_lie_over_each_other(tmp_path):
    made = config(
        tmp_path,
        "train: {batch_size: 4, rate: 1e-3}\ndata: {shards: a, window: 9}\nengine: {init_args: {size_l: 3}}",
        "--local_rank=1", "--train.batch_size", "8", "--engine.note=big",
    )  # fmt: skip
    assert made.train == Train(batch_size=8, rate=1e-3)
    assert made.data == Data(shards=["a"], window=9)
    assert made.engine.init_args == {"size_l": 3.0, "window": 9, "note": "big"}


def test_bare_names_aliases_and_lists():
    made = load(SCHEMA, ["--batch_size", "64", "--size_l=4", "--data_path", "a", "b", "--sensors", "acc", "gyr"])
    assert made.train.batch_size == 64
    assert made.engine.init_args["size_l"] == 4
    assert made.data.shards == ["a", "b"]
    assert made.data.sensors == ["acc", "gyr"]
    assert load(SCHEMA, ["--data.shards", "one"]).data.shards == ["one"]
    assert load(SCHEMA, ["--window", "3"]).engine.init_args["window"] == 3


def test_another_class_brings_its_own_arguments(tmp_path):
    spec = config(tmp_path, "engine: {class_path: Steam}", "--engine.boilers", "3").engine
    assert spec.init_args == {"boilers": 3}
    made = instantiate(spec, Engine, tank="t")
    assert isinstance(made, Steam)
    assert (made.tank, made.boilers) == ("t", 3)
    assert load(SCHEMA, ["--engine", "Steam", "--boilers", "2"]).engine.init_args == {"boilers": 2}


def test_dump_reads_back_the_same(tmp_path):
    made = load(SCHEMA, ["--window", "3", "--out", "o", "--engine", "Steam", "--boilers", "2"])
    assert config(tmp_path, dump(SCHEMA, made)) == made
    made = load(SCHEMA, ["--window", "3", "--note", "12"])
    assert config(tmp_path, dump(SCHEMA, made)) == made


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        ("train: {batch_siz: 3}", [], "unknown key train.batch_siz (did you mean train.batch_size?)"),
        ("engine: {init_args: {size: 3}}", [], "unknown key engine.size (did you mean engine.size_l?)"),
        ("engine: {init_args: {window: 3}}", [], "engine.window always equals data.window"),
        (
            "engine: {class_path: Diesel}",
            [],
            "engine.class_path: no Engine is called 'Diesel'; there are Petrol, Steam",
        ),
        ("nonsense: 3", [], "unknown key nonsense"),
        ("[1]", [], "expected keys with values"),
        ("a: [1", [], "is not YAML"),
        ("{}", ["--batch_siz", "3"], "unknown flag --batch_siz (did you mean train.batch_size?)"),
        ("{}", ["--batch_size"], "--batch_size needs a value"),
        ("{}", ["train"], "unexpected argument 'train'"),
        ("{}", ["--batch_size", "many"], "train.batch_size: Expected a int. Got value: many"),
        ("{}", ["--size_l", "many"], "engine.size_l: Expected a float. Got value: many"),
        ("data: {window: -1}", [], "data.window must be positive"),
        ("data: [1, 2]", [], "data: expected keys with values, found [1, 2]"),
        ("train: 3", [], "train: expected keys with values, found 3"),
        ("engine: {init_args: 3}", [], "engine.init_args: expected keys with values, found 3"),
    ],
)
def test_complaints_name_the_key(tmp_path, text, flags, said):
    with pytest.raises(ConfigError) as error:
        config(tmp_path, text, *flags)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_lone_value_of_a_list_is_a_list_of_one(tmp_path):
    assert load(SCHEMA, ["--only", "a", "--seeds", "3"]).data == Data(only=["a"], seeds=[3])
    assert load(SCHEMA, ["--only", "a", "7", "--seeds", "3", "4"]).data == Data(only=["a", "7"], seeds=[3, 4])
    assert load(SCHEMA, ["--only=null", "--sensors", "acc"]).data == Data(sensors="acc")
    assert config(tmp_path, "data: {only: a, seeds: 5}").data == Data(only=["a"], seeds=[5])


def test_a_section_with_nothing_behind_it_says_nothing(tmp_path):
    assert config(tmp_path, "train:\ndata: {}\nengine: {init_args: }") == load(SCHEMA, [])
    assert config(tmp_path, "engine:") == load(SCHEMA, [])


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "c.yaml").write_bytes("out: Kühe".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"c\.yaml is no UTF-8 text: byte 6 is 0xfc"):
        load(SCHEMA, ["--config", str(tmp_path / "c.yaml")])


def test_several_problems_are_reported_together(tmp_path):
    with pytest.raises(ConfigError) as error:
        config(tmp_path, "train: {batch_siz: 3}\ndata: {windo: 3}", "--sed", "1")
    assert [key in str(error.value) for key in ("train.batch_siz", "data.windo", "--sed")] == [True] * 3
    with pytest.raises(ConfigError) as error:
        config(tmp_path, "train: {batch_size: x}\ndata: {window: y}", "--rate", "z")
    assert [key in str(error.value) for key in ("train.batch_size", "data.window", "train.rate")] == [True] * 3


def test_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load(SCHEMA, ["--config", "nowhere.yaml"])


@pytest.mark.parametrize("flag", ["--help", "--print_config"])
def test_help_and_print_config_exit_0(flag, capsys):
    with pytest.raises(SystemExit) as stop:
        load(SCHEMA, [flag])
    assert stop.value.code == 0
    assert "batch_size" in capsys.readouterr().out
