"""The YAML that describes a table: which files, which columns are which sensor, who and what they show.

text -> Layout, every key and value checked; a misspelt key is a ConfigError that names the nearest
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, get_type_hints

from aar_dist.base.errors import ConfigError
from aar_dist.recordings import yaml_values
from aar_dist.recordings.names import fault_of_axes, fault_of_dataset, fault_of_sensors
from aar_dist.recordings.yaml_values import known_keys

S = TypeVar("S")


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
    scale: float | list[float] | None = None
    """Number, or one for each column: value in ``units`` = scale * stored + offset."""
    offset: float | list[float] | None = None

    def check(self, where: str) -> None:
        """ConfigError where the keys disagree."""
        n = len(self.columns)
        for key, given in (("axes", self.axes), ("scale", self.scale), ("offset", self.offset)):
            if isinstance(given, list) and given and len(given) != n:
                raise ConfigError(f"{where}.{key}: expected one for each of {n} columns, found {len(given)}")
        if self.scale is not None and 0 in (self.scale if isinstance(self.scale, list) else [self.scale]):
            raise ConfigError(f"{where}.scale: is 0; every column needs a scale other than 0")
        fault = fault_of_axes(self.axes or self.columns)
        if fault:
            raise ConfigError(f"{where}.axes: {fault}")


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
    unlabelled: tuple[str, ...] = ("",)
    """What stands where nothing is labelled; the text of a cell may be empty."""

    def check(self) -> None:
        """ConfigError where the keys disagree."""
        if (self.column is None) == (self.path is None):
            raise ConfigError("label: give either `column` or `path`")
        if self.path and not self.classes:
            raise ConfigError("label.classes: is missing; a label from `path` is one of named classes")
        classes = self.classes or []
        if len(set(classes)) < len(classes):
            raise ConfigError(f"label.classes: expected every class once, found {', '.join(classes)}")
        both = [c for c in classes if c in self.unlabelled]
        if both:
            raise ConfigError(f"label.unlabelled: {both[0]!r} is one of label.classes too; keep it in one of them")
        strange = [c for c in self.map.values() if c not in (*classes, *self.unlabelled)]
        if strange:
            raise ConfigError(f"label.map: {strange[0]!r} is none of label.classes; it has {', '.join(classes)}")


@dataclass(frozen=True, kw_only=True)
class TimeLayout:
    """Timestamps, by which recordings are split at gaps."""

    column: str
    unit: str = "s"
    """``s``, ``ms``, ``us`` or ``ns`` for numbers; ``iso`` for dates and times, which also give the start."""
    max_step_s: float | None = None
    """A longer step is a gap; 1.5 sample periods, if not given."""

    def check(self) -> None:
        """ConfigError where a value cannot be meant."""
        if self.unit not in ("s", "ms", "us", "ns", "iso"):
            raise ConfigError(f"timestamps.unit: {self.unit!r} is none of s, ms, us, ns, iso")
        if self.max_step_s is not None and not self.max_step_s > 0:
            raise ConfigError(f"timestamps.max_step_s: must be positive, got {self.max_step_s:g}")


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

    def check(self) -> None:
        """ConfigError, beginning with the key, where a value cannot be meant or keys disagree."""
        _check_glob(self.glob)
        for key, sign in (("separator", self.separator), ("decimal", self.decimal)):
            if len(sign.encode()) != 1 or sign in '"\r\n':
                hint = '; a tab is "\\t" in double quotes' if sign == "\\t" else ""
                raise ConfigError(f"{key}: expected a single character, found {sign!r}{hint}")
        if self.separator == self.decimal:
            raise ConfigError(f"decimal: {self.decimal!r} is the separator too")
        if not self.rate_hz > 0:
            raise ConfigError(f"rate_hz: must be positive, got {self.rate_hz:g}")
        if not self.sensors:
            raise ConfigError("sensors: name at least one")
        for key, fault in (("dataset", fault_of_dataset(self.dataset)), ("sensors", fault_of_sensors([*self.sensors]))):
            if fault:
                raise ConfigError(f"{key}: {fault}")
        for name, sensor in self.sensors.items():
            sensor.check(f"sensors.{name}")
        if self.label:
            self.label.check()
        if self.timestamps:
            self.timestamps.check()
        self._check_groups()

    def _check_groups(self) -> None:
        """Every group that is named is one of ``path``."""
        try:
            groups = sorted(re.compile(self.path or "").groupindex)
        except re.error as error:
            raise ConfigError(f"path: not a regular expression: {error}") from error
        named = {key: getattr(self, key).path for key in ("subject", "species", "location", "start_time")}
        named["label"] = self.label.path if self.label else None
        for key, group in named.items():
            if group is not None and group not in groups:
                raise ConfigError(f"{key}.path: {group!r} is no group of `path`; it has {', '.join(groups) or 'none'}")


def read_layout(path: Path) -> Layout:
    """A layout from its YAML file; ConfigError names file and key."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the YAML that describes the table")
    content = yaml_values.load(path)
    try:
        layout = _read(Layout, content, "")
        layout.check()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return layout


def _check_glob(glob: str) -> None:
    pattern = PurePosixPath(glob)
    if pattern.is_absolute() or ".." in pattern.parts or not pattern.parts:
        raise ConfigError(f"glob: expected a pattern relative to SOURCE, such as **/*.csv, found {glob!r}")
    if any("**" in part and part != "**" for part in pattern.parts):
        raise ConfigError(f"glob: `**` stands for whole folders, as in **/*.csv, found {glob!r}")


def _read(kind: type[S], content: Any, where: str) -> S:
    """A section by the types of its fields."""
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    types = get_type_hints(kind)
    given = known_keys(content, where, list(types), needed)
    prefix = f"{where}." if where else ""
    return kind(**{key: READERS[types[key]](value, f"{prefix}{key}") for key, value in given.items()})


def _from(value: Any, where: str) -> From:
    if not isinstance(value, Mapping):
        return From(value=yaml_values.text(value, where))
    read = _read(From, value, where)
    if sum(v is not None for v in (read.value, read.column, read.path)) != 1:
        raise ConfigError(f"{where}: give one of `value`, `column` and `path`")
    return read


def _sensors(value: Any, where: str) -> dict[str, SensorLayout]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected `name: {{columns, units}}`, found {value!r}")
    return {yaml_values.text(name, where): _read(SensorLayout, s, f"{where}.{name}") for name, s in value.items()}


READERS: dict[Any, Callable[[Any, str], Any]] = {
    str: yaml_values.text,
    str | None: yaml_values.text,
    float: yaml_values.number,
    float | None: yaml_values.number,
    float | list[float] | None: yaml_values.numbers,
    list[str]: yaml_values.texts,
    list[str] | None: yaml_values.texts,
    tuple[str, ...]: yaml_values.cells,
    dict[str, str]: yaml_values.renamed,
    From: _from,
    dict[str, SensorLayout]: _sensors,
    LabelLayout | None: lambda value, where: _read(LabelLayout, value, where),
    TimeLayout | None: lambda value, where: _read(TimeLayout, value, where),
}
"""How a value of each type of field is read: (what the YAML holds, its key) -> the value, or ConfigError."""
