"""Classes of the recordings under other names: several fine ones as a coarse one, two data sets' as one.

windows.map -> LabelMap -> label runs under their new names, before windows are cut

A window whose two fine classes are one coarse class is whole: it is labelled as any other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aar_dist.base.errors import ConfigError
from aar_dist.base.wording import meant

Unlisted = Literal["drop", "keep"]
KEY = "windows.map"
Run = dict[str, Any]


@dataclass(frozen=True)
class LabelMap:
    """What each class of the recordings is called."""

    to: Mapping[str, str]
    """``Class`` or ``<data set>/Class`` -> its new name; what names its data set counts more."""
    unlisted: Unlisted
    """What becomes of the others: unlabelled, or as they are."""

    @classmethod
    def of(cls, told: Mapping[str, Any], unlisted: Unlisted) -> "LabelMap | None":
        """The map of a configuration; None without one. Raises ``ConfigError`` if it says two things of a class."""
        to: dict[str, str] = {}
        for new, old in _pairs(told):
            if to.setdefault(old, new) != new:
                raise ConfigError(f"{KEY}: {old} is to be {to[old]} and {new}; name it once")
        return cls(to, unlisted) if to else None

    def named(self, dataset: str, name: str) -> str | None:
        """The new name of a class; None for one that is dropped."""
        return self.to.get(f"{dataset}/{name}", self.to.get(name, name if self.unlisted == "keep" else None))

    def relabelled(self, runs: Iterable[Run]) -> list[Run]:
        """The runs under their new names, without those that are dropped."""
        renamed = ({**run, "class": self.named(run["dataset"], run["class"])} for run in runs)
        return [run for run in renamed if run["class"] is not None]

    def check(self, runs: Sequence[Run]) -> None:
        """Raise ``ConfigError`` if a class is named that no recording carries, or if all labels are targets."""
        there = {(run["dataset"], run["class"]) for run in runs if run["class"] is not None}
        if runs and not there:
            raise ConfigError(f"{KEY} names classes, but the labels are targets; leave it out")
        names = {name for _, name in there} | {f"{dataset}/{name}" for dataset, name in there}
        for old in self.to:
            if old not in names:
                own = {f"{dataset}/{name}" for dataset, name in there if name == old.rpartition("/")[2]}
                near = (own or names) if "/" in old else {name for _, name in there}
                raise ConfigError(f"{KEY}: no label {old!r} in the shards; {meant(old, near)}")


def _pairs(told: Mapping[str, Any], dataset: str = "") -> Iterator[tuple[str, str]]:
    """(new name, class it is made of) of a map, which may be told for each data set apart."""
    for new, old in told.items():
        if isinstance(old, Mapping) and not dataset:
            yield from _pairs(old, f"{new}/")
            continue
        classes = [old] if isinstance(old, str) else old
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise ConfigError(
                f"{KEY}: {dataset}{new} is {old!r}; expected a list of classes, such as {{Walking: [WALKING, STAIRS]}}"
            )
        yield from ((str(new), f"{dataset}{name}") for name in classes)
