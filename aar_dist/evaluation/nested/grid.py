"""Every combination of the values that may be chosen.

{optim.lr: [0.0001, 0.001], freeze: {unlocked_layers: [1, 2]}} -> [{optim.lr: 0.0001, freeze.unlocked_layers: 1}, …]
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from aar_dist.base.errors import ConfigError

MOST = 256
"""Combinations in each fold; more are a mistake rather than a wish."""
Settings = dict[str, Any]


def grid(choose: Mapping[str, Any], where: str) -> list[Settings]:
    """The combinations, the last key changing fastest; none where nothing is to be chosen.

    Raises:
        ConfigError: a key without a list of several values, or more combinations than anybody means.
    """
    keys = dict(_flat(choose))
    for key, values in keys.items():
        if not isinstance(values, list) or len(values) < 2:
            raise ConfigError(
                f"{where}.{key} is {values!r}: give a list of values to choose from, or set it in the recipe"
            )
        if any(values.count(value) > 1 for value in values):
            raise ConfigError(f"{where}.{key} names a value twice: {values}")
    made = [dict(zip(keys, values, strict=True)) for values in itertools.product(*keys.values())] if keys else []
    if len(made) > MOST:
        raise ConfigError(f"{where} has {len(made)} combinations to be trained in each fold; {MOST} at most")
    return made


def told(settings: Mapping[str, Any]) -> str:
    """A combination in few words: ``lr 0.001, unlocked_layers 2``."""
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in settings.items())


def _flat(choose: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in choose.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
