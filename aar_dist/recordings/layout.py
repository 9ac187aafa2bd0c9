"""The YAML that describes a table: which files, which columns are which sensor, who and what they show.

text -> Layout, every key checked; a misspelt one is a ConfigError that names the nearest
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml

from aar_dist.base.errors import ConfigError

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class From:
    """Where a value of a whole recording comes from: the same for all, a column, or a group of ``path``."""

    value: str | None = None
    column: str | None = None
    path: str | None = None
    """Name of a group of the regular expression ``path``."""


@dataclass(frozen=True, kw_only=True)
class SensorLayout:
    """One sensor."""

    columns: list[str]
    units: str
    axes: list[str] = field(default_factory=list)
    """Names of the axes; those of the columns, if not given."""
    scale: Any = None
    """Number, or one for each column: value in ``units`` = scale * stored + offset."""
    offset: Any = None


@dataclass(frozen=True, kw_only=True)
class LabelLayout:
    """What the recordings show."""

    column: str | None = None
    path: str | None = None
    """Name of a group of the regular expression ``path``, for files of one class each."""
    classes: list[str] | None = None
    """Names of the classes, in the order of their numbers; without them, ``column`` holds numbers to be predicted."""
    map: dict[str, str] = field(default_factory=dict)
    """As it stands in the data -> the class that is meant: codes, other languages, misspellings."""
    unlabelled: list[str] = field(default_factory=lambda: [""])
    """What stands where nothing is labelled."""


@dataclass(frozen=True, kw_only=True)
class TimeLayout:
    """Timestamps, by which recordings are split at gaps."""

    column: str
    unit: str = "s"
    """``s``, ``ms``, ``us`` or ``ns`` for numbers; ``iso`` for dates and times, which also give the start."""
    max_step_s: float | None = None
    """A longer step is a gap; 1.5 sample periods, if not given."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A data set of CSV or Parquet files."""

    dataset: str
    """Name of the data set, and of its folder."""
    glob: str
    """Files, relative to SOURCE: ``**/*.csv``."""
    rate_hz: float
    sensors: dict[str, SensorLayout]
    subject: From
    species: From
    separator: str = ","
    decimal: str = "."
    path: str | None = None
    """Regular expression with named groups, for the path of a file relative to SOURCE."""
    location: From = field(default_factory=From)
    start_time: From = field(default_factory=From)
    label: LabelLayout | None = None
    timestamps: TimeLayout | None = None

    def __post_init__(self) -> None:
        groups = set(re.compile(self.path).groupindex) if self.path else set()
        named = {"subject": self.subject.path, "species": self.species.path, "location": self.location.path}
        named |= {"start_time": self.start_time.path, "label": self.label.path if self.label else None}
        for key, group in named.items():
            if group is not None and group not in groups:
                raise ConfigError(
                    f"{key}.path: {group!r} is no group of `path`; it has {', '.join(sorted(groups)) or 'none'}"
                )
        if not self.rate_hz > 0:
            raise ConfigError(f"rate_hz must be positive, got {self.rate_hz}")
        if not self.sensors:
            raise ConfigError("sensors: name at least one")
        if self.timestamps and self.timestamps.unit not in ("s", "ms", "us", "ns", "iso"):
            raise ConfigError(f"timestamps.unit: {self.timestamps.unit!r} is none of s, ms, us, ns, iso")
        if self.label and (self.label.column is None) == (self.label.path is None):
            raise ConfigError("label: give either `column` or `path`")


def read_layout(path: Path) -> Layout:
    """A layout from its YAML file; ConfigError names file and key."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the YAML that describes the table")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    try:
        return _layout(_fields(Layout, content, ""))
    except (ConfigError, re.error) as error:
        raise ConfigError(f"{path}: {error}") from error


def _layout(content: dict[str, Any]) -> Layout:
    for key in ("subject", "species", "location", "start_time"):
        if key in content:
            value = content[key]
            content[key] = From(**_fields(From, value, f"{key}.") if isinstance(value, dict) else {"value": str(value)})
    sensors = content["sensors"]
    if not isinstance(sensors, dict):
        raise ConfigError("sensors: expected `name: {columns, units}`")
    content["sensors"] = {
        name: SensorLayout(**_fields(SensorLayout, s, f"sensors.{name}.")) for name, s in sensors.items()
    }
    if content.get("label") is not None:
        content["label"] = LabelLayout(**_fields(LabelLayout, content["label"], "label."))
    if content.get("timestamps") is not None:
        content["timestamps"] = TimeLayout(**_fields(TimeLayout, content["timestamps"], "timestamps."))
    return Layout(**content)


def _fields(kind: type[Any], content: Any, where: str) -> dict[str, Any]:
    """The keys of a section, all known and none missing."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where.rstrip('.') or 'the file'}: expected keys and values, found {content!r}")
    known = [f.name for f in fields(kind)]
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), known, n=1, cutoff=0.4)
            hint = f"did you mean {where}{near[0]}?" if near else f"use one of {', '.join(known)}"
            raise ConfigError(f"{where}{key}: no such key; {hint}")
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    missing = [n for n in needed if n not in content]
    if missing:
        raise ConfigError(f"{where}{missing[0]}: is missing")
    return dict(content)
