"""What is wrong with a configuration, in one line that names the key."""

import difflib
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import is_dataclass
from functools import partial
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from aar_dist.base.errors import ConfigError, one_line


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def short(key: str) -> str:
    return key.replace(".init_args.", ".")


def list_keys(config: type, prefix: str = "") -> set[str]:
    """Keys of a dataclass whose value is a list, or nothing: a lone value there is a list of one."""
    found = set()
    for name, hint in get_type_hints(config).items():
        kinds = [kind for kind in get_args(hint) if kind is not NoneType] if _is_union(hint) else [hint]
        if all(get_origin(kind) is list for kind in kinds):
            found.add(prefix + name)
        elif is_dataclass(hint):
            found |= list_keys(cast(type, hint), f"{prefix}{name}.")
    return found


def _is_union(hint: Any) -> bool:
    """True of ``A | B``."""
    return get_origin(hint) in (Union, UnionType)


def unknown(
    settings: dict[str, Any], keys: Mapping[str, Any], choices: Container[str], links: Mapping[str, str]
) -> list[str]:
    """A line for each key of the files that means nothing."""
    problems = []
    for written, _ in flat(settings):
        key = short(written)
        if key in links:
            problems.append(f"{key} always equals {links[key]}: set that")
        elif (
            not any(key == k or key.startswith(f"{k}.") or k.startswith(f"{key}.") for k in keys) and key not in choices
        ):
            problems.append(f"unknown key {key}{nearest(key, keys)}")
    return problems


def nearest(name: str, keys: Mapping[str, Any]) -> str:
    """The key that was probably meant."""
    leaves = {key.rpartition(".")[2]: key for key in keys}
    close = difflib.get_close_matches(name, keys, 1) or [
        leaves[leaf] for leaf in difflib.get_close_matches(name.rpartition(".")[2], leaves, 1)
    ]
    return f" (did you mean {close[0]}?)" if close else "; --help lists the keys"


def diagnose(parser: ArgumentParser, settings: dict[str, Any], flags: list[str]) -> list[str]:
    """Each setting tried alone, so that all bad ones are reported together."""
    trials: list[Callable[[], Any]] = [partial(parser.parse_object, one) for one in _singles(settings)]
    trials += [partial(parser.parse_args, flags[i : i + 2]) for i in range(0, len(flags), 2)]
    found = []
    for trial in trials:
        try:
            trial()
        except Exception as error:
            found.append(tidy(error))
    return list(dict.fromkeys(found))


def _singles(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The settings, one at a time; the class path stays beside its arguments."""
    for key, value in settings.items():
        if isinstance(value, dict) and key != "init_args":
            fixed = {"class_path": value["class_path"]} if "class_path" in value else {}
            for inner in _singles(value):
                yield {key: {**fixed, **inner}}
        elif isinstance(value, dict):
            yield from ({key: {name: argument}} for name, argument in value.items())
        else:
            yield {key: value}


def tidy(error: Exception) -> str:
    """One line out of the parser's message: the key, what was expected, what was found."""
    if isinstance(error, ConfigError):
        return one_line(error)
    text = [line.strip().lstrip("- ") for line in str(error).splitlines()]
    named = [line.partition('"')[2].partition('"')[0] for line in text if line.startswith("Parser key")]
    expected = [line for line in text if line.startswith(("Expected", "Option", "Input", "Problem", "Given"))]
    expected = [line for line in expected if "NoneType" not in line and not line.startswith(("Problem", "Given"))]
    if not named or not expected:
        return one_line(error)
    return f"{'.'.join(dict.fromkeys(named))}: {expected[0]}".replace("<class '", "").replace("'>", "")
