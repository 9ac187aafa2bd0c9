"""Values of a YAML by their types: each is what was written, or a ConfigError that names the key.

text -> None, text, lists and mappings of text -> str, float, list, dict

Nothing is taken for a number or a truth value that is not asked for as one: class ``no`` stays ``no``, subject ``012``
stays ``012``. An empty value is None.
"""

import math
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import yaml

from aar_dist.base.errors import ConfigError


class _AsWritten(yaml.SafeLoader):  # type: ignore[misc]
    """Only an empty value, ``~`` and ``null`` have a meaning of their own."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}  # PyYAML keeps them here


_AsWritten.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])


def load(path: Path) -> Any:
    """The content of a YAML file."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _AsWritten)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error


def text(value: Any, where: str) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: expected a text, found {_told(value)}")
    return value


def number(value: Any, where: str) -> float:
    """A finite number."""
    try:
        found = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ConfigError(f"{where}: expected a number without a unit, found {_told(value)}")
    return found


def numbers(value: Any, where: str) -> float | list[float]:
    """A number, or a list of them."""
    return [number(v, where) for v in value] if isinstance(value, list) else number(value, where)


def texts(value: Any, where: str) -> list[str]:
    """A list of texts, of which one alone may stand without brackets."""
    if value == []:
        raise ConfigError(f"{where}: expected a list of texts, found {_told(value)}")
    return [text(v, where) for v in (value if isinstance(value, list) else [value])]


def cells(value: Any, where: str) -> tuple[str, ...]:
    """As :func:`texts`, of what may stand in a cell: an empty text too, and none at all."""
    listed = value if isinstance(value, list) else [value]
    return tuple(v if v == "" else text(v, where) for v in listed)


def renamed(value: Any, where: str) -> dict[str, str]:
    """Text to text."""
    return {cells(k, where)[0]: cells(v, f"{where}.{k}")[0] for k, v in section(value, where).items()}


def section(value: Any, where: str) -> Mapping[Any, Any]:
    """Keys and values."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where or 'the file'}: expected keys and values, found {_told(value)}")
    return value


def known_keys(value: Any, where: str, known: list[str], needed: list[str]) -> dict[str, Any]:
    """The keys of a section that have a value: all of them known, none of the needed ones missing."""
    content = section(value, where)
    prefix = f"{where}." if where else ""
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), known, n=1, cutoff=0.4)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"use one of {', '.join(known)}"
            raise ConfigError(f"{prefix}{key}: no such key; {hint}")
    for key in needed:
        if content.get(key) is None:
            raise ConfigError(f"{prefix}{key}: is {'empty' if key in content else 'missing'}")
    return {key: v for key, v in content.items() if v is not None}


def _told(value: Any) -> str:
    return "nothing" if value is None or value in ("", [], {}) else repr(value)
