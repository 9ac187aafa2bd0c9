"""Configuration: typed dataclasses, read from YAML files and flags.

    --config file.yaml --train.batch_size 64 --d_embedding 256   ->   load(schema, argv)   ->   a frozen dataclass

A ``Schema`` names the dataclass and those of its fields that hold a class of the user's choice (``ClassSpec``: a class
path and its arguments). Every problem is a ``ConfigError`` of one line that names the key.
"""

import json
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import yaml
from jsonargparse import ArgumentParser, Namespace

from aar_dist.base.config_problems import diagnose, flat, list_keys, nearest, short, tidy, unknown
from aar_dist.base.errors import AarError, ConfigError, one_line

C = TypeVar("C")
M = TypeVar("M")

LAUNCHER_FLAGS = ("--local_rank", "--local-rank")


@dataclass(frozen=True)
class ClassSpec:
    """A class and the arguments to make it with, as written in YAML."""

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A configuration field that holds a class: any subclass of ``base``."""

    base: type
    default: str
    """Class path used when the configuration names none."""
    given: tuple[str, ...] = ()
    """Constructor arguments that the program supplies; they are no configuration keys."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Short name -> class path."""


@dataclass(frozen=True)
class Schema(Generic[C]):
    """What a configuration may say."""

    config: type[C]
    choices: Mapping[str, Choice] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    """Argument of a chosen class -> the key it always follows."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Older flag name -> key."""


def load(schema: Schema[C], argv: Sequence[str], defaults: Mapping[str, Any] | None = None) -> C:
    """The configuration of these arguments. ``--help``, ``--print_config`` print and exit.

    Args:
        defaults: Settings that hold where neither a file nor a flag says otherwise.
    """
    parser = _parser(schema)
    settings, flags = _read_files(argv)
    settings, flags = _class_paths(schema, settings), _named_flags(schema, flags)
    settings = _over(dict(defaults or {}), settings)
    printing = "--print_config" in flags
    flags = [flag for flag in flags if flag != "--print_config"]
    keys = _keys(schema, parser, settings, flags)
    settings = _sections(schema, keys, settings)
    flags, problems = _full_flags(schema, keys, flags)
    problems = [*unknown(settings, keys, schema.choices, schema.links), *problems]
    if problems:
        raise ConfigError("; ".join(problems))
    settings = _listed(list_keys(schema.config), settings)
    try:
        parsed = parser.parse_args(flags, namespace=parser.parse_object(settings))
    except Exception as error:
        raise ConfigError("; ".join(diagnose(parser, settings, flags) or [tidy(error)])) from None
    if printing:
        print(parser.dump(parsed, skip_unset=False), end="")
        raise SystemExit(0)
    return _build(schema, parser, parsed)


def dump(schema: Schema[C], config: C) -> str:
    """The resolved configuration as YAML that :func:`load` reads back; values that follow another key are left out."""
    parser = _parser(schema)
    values = {f.name: _plain(getattr(config, f.name)) for f in fields(cast(Any, config))}
    return str(parser.dump(parser.parse_object(values), skip_unset=False))


def instantiate(spec: ClassSpec, base: type[M], **given: Any) -> M:
    """Make the object of a class spec; ``given`` are the arguments that the program supplies."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "it", skip=set(given))

    def make(kind: type[M], *args: Any, **kwargs: Any) -> M:
        return kind(*args, **kwargs, **given)

    try:
        parsed = parser.parse_object({"it": {"class_path": spec.class_path, "init_args": spec.init_args}})
    except Exception as error:
        raise ConfigError(f"{spec.class_path}: {tidy(error)}") from None
    try:
        return cast(M, parser.instantiate(parsed, instantiators=[(make, base, True)]).it)
    except ValueError as error:
        raise _own_words(error) from None


def _own_words(error: BaseException) -> BaseException:
    """What the class itself complained of, if that is what the parser wrapped."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, AarError):
        link = link.__cause__ or link.__context__
    return link or error


def _parser(schema: Schema[C]) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, description=schema.config.__doc__)
    parser.add_class_arguments(schema.config, None, skip=set(schema.choices), as_group=False)
    for name, choice in schema.choices.items():
        parser.add_subclass_arguments(choice.base, name, skip=set(choice.given), instantiate=False)
        parser.set_defaults({name: {"class_path": choice.default}})
    for target, source in schema.links.items():
        parser.link_arguments(source, target.replace(".", ".init_args.", 1))
    return parser


def _build(schema: Schema[C], parser: ArgumentParser, parsed: Namespace) -> C:
    values = parser.instantiate(parsed)
    made = {f.name: values[f.name] for f in fields(cast(Any, schema.config))}
    for name in schema.choices:
        made[name] = ClassSpec(values[name].class_path, _plain(values[name].get("init_args", {})))
    return schema.config(**made)


def _plain(value: Any) -> Any:
    """Dataclasses, namespaces and paths as dicts, lists and scalars."""
    if isinstance(value, Namespace):
        return {k: _plain(v) for k, v in vars(value).items()}
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


# --- reading -----------------------------------------------------------------------------------------------------


def _read_files(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Settings of all ``--config`` files, later ones on top, and the other arguments."""
    settings: dict[str, Any] = {}
    rest: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag == "--config":
            settings = _over(settings, read_yaml(value if equals else next(arguments, "")))
        elif flag not in LAUNCHER_FLAGS:
            rest.append(argument)
        elif not equals:
            next(arguments, None)
    return settings, rest


def read_yaml(path: str) -> dict[str, Any]:
    """The settings in a YAML file. Raises ``ConfigError``."""
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; give the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {one_line(error)}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected keys with values (train: …), found {type(value).__name__}")
    return value


def _class_paths(schema: Schema[C], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the class path of every choice that is called by a short name."""
    made = dict(settings)
    for name, choice in schema.choices.items():
        value = settings.get(name)
        path = value.get("class_path") if isinstance(value, dict) else value
        if isinstance(path, str) and path in choice.names:
            made[name] = {**(value if isinstance(value, dict) else {}), "class_path": choice.names[path]}
    return made


def _named_flags(schema: Schema[C], flags: Sequence[str]) -> list[str]:
    """The same for flags."""
    made: list[str] = []
    for flag in flags:
        key, equals, value = flag.partition("=")
        names = _names_at(schema, key)
        before = _names_at(schema, made[-1]) if made else {}
        made.append(f"{key}={names.get(value, value)}" if equals and names else before.get(flag, flag))
    return made


def _names_at(schema: Schema[C], flag: str) -> Mapping[str, str]:
    """Short names that the value of this flag may be."""
    choice = schema.choices.get(flag.removeprefix("--").removesuffix(".class_path"))
    return choice.names if choice and flag.startswith("--") else {}


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two settings laid over each other. Another class brings its own arguments."""
    merged = dict(below)
    if "class_path" in above and above["class_path"] != below.get("class_path"):
        merged.pop("init_args", None)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _keys(schema: Schema[C], parser: ArgumentParser, settings: dict[str, Any], flags: Sequence[str]) -> dict[str, Any]:
    """Every key that may be set, ``model.d_embedding`` for an argument of the chosen model, with its default."""
    chosen = {}
    for name, choice in schema.choices.items():
        value = settings.get(name)
        path = value.get("class_path") if isinstance(value, dict) else value
        for flag, value in _flag_pairs(flags):
            path = value[0] if flag in (f"--{name}", f"--{name}.class_path") and value else path
        chosen[name] = {"class_path": path or choice.default}
        try:
            parser.parse_object({name: chosen[name]})
        except Exception:
            raise ConfigError(
                f"{name}.class_path: no {choice.base.__name__} is called {path!r}{_classes(choice)}"
            ) from None
    known = {short(key): value for key, value in flat(_plain(parser.parse_object(chosen)))}
    return {key: value for key, value in known.items() if key not in schema.links}


def _classes(choice: Choice) -> str:
    kinds: list[type] = choice.base.__subclasses__()
    names = list(choice.names) or sorted(kind.__name__ for kind in kinds)
    return f"; there are {', '.join(names)}" if names else ""


def _flag_pairs(flags: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each flag with its values, of ``--flag=value`` and ``--flag value value``."""
    pairs: list[tuple[str, list[str]]] = []
    for argument in flags:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            pairs.append((flag, [value] if equals else []))
        elif pairs:
            pairs[-1][1].append(argument)
        else:
            raise ConfigError(f"unexpected argument {argument!r}; settings are written --key value")
    return pairs


def _full_flags(schema: Schema[C], keys: Mapping[str, Any], flags: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags with full keys and list values in one piece; and the problems found."""
    full, problems = [], []
    lists = list_keys(schema.config)
    for flag, values in _flag_pairs(flags):
        if flag == "--help":
            full.append(flag)
            continue
        name = short(flag.removeprefix("--").removesuffix("+").replace("-", "_"))
        key = _key_of(schema, keys, name)
        if key is None:
            problems.append(f"unknown flag {flag}{nearest(name, keys)}")
        elif not values and not isinstance(keys.get(key), bool):
            problems.append(f"{flag} needs a value")
        else:
            full += [f"--{key}", _one_value(values or ["true"], to_list=key in lists)]
    return full, problems


def _key_of(schema: Schema[C], keys: Mapping[str, Any], name: str) -> str | None:
    """The key a flag means: itself, an alias, or the only key that ends in its name."""
    if name in keys or name in schema.choices or name in [f"{c}.class_path" for c in schema.choices]:
        return name
    if f"--{name}" in schema.aliases:
        return schema.aliases[f"--{name}"]
    ends = [key for key in keys if key.rpartition(".")[2] == name]
    return ends[0] if len(ends) == 1 else None


def _one_value(values: list[str], *, to_list: bool) -> str:
    many = len(values) > 1 or (to_list and not values[0].lstrip().startswith("[") and values[0] != "null")
    return json.dumps(values) if many else values[0]


def _sections(schema: Schema[C], keys: Mapping[str, Any], settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings without sections that nothing stands behind. Raises ``ConfigError`` where a section holds
    anything but keys."""
    made = {}
    for key, value in settings.items():
        if any(k.startswith(short(f"{prefix}{key}.")) for k in keys) and not (
            isinstance(value, str) and key in schema.choices
        ):
            if not isinstance(value, dict | None):
                raise ConfigError(f"{prefix}{key}: expected keys with values, found {value!r}")
            value = _sections(schema, keys, value or {}, f"{prefix}{key}.")
        if value != {}:
            made[key] = value
    return made


def _listed(keys: Set[str], settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings with a lone value of a list key (``shards: folder``) as a list."""
    made = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            value = _listed(keys, value, f"{prefix}{key}.")
        elif prefix + key in keys and isinstance(value, str | int | float):
            value = [value]
        made[key] = value
    return made


def arguments() -> list[str]:
    """The command line of this process."""
    return sys.argv[1:]
