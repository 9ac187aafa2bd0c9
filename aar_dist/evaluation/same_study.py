"""Whether a folder of folds was made with the settings of now: only then do its finished folds count.

config.yaml of the folder, FinetuneConfig -> nothing, or the first key that differs
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from aar_dist.base.config import dump
from aar_dist.base.errors import ConfigError, one_line
from aar_dist.training.finetuning.config import SCHEMA, FinetuneConfig
from aar_dist.training.progress import FREE_DATA_KEYS

STRATEGIES = "cross_validation.strategies"
OPTIONS_MAY_CHANGE = (
    "seeds", "fractions", "baselines", "probes", "final", "workers", "ranks", "cores", "gpus", "ray_address", "retries",
)  # fmt: skip
"""More seeds, shares and methods may join, and others may do the work; what is done already stays."""
MAY_CHANGE = (
    "out", "tracking", "store.path", *(f"data.{name}" for name in FREE_DATA_KEYS), "train.log_every",
    "train.keep_last", "train.keep_every", "health", *(f"cross_validation.{name}" for name in OPTIONS_MAY_CHANGE),
)  # fmt: skip
"""Where things stand, and what is said of them. folds.json holds the identity of the shards."""


def check_same(file: Path, config: FinetuneConfig) -> None:
    """Raise ``ConfigError`` if the folder of a config.yaml was made with other settings, or is none of folds."""
    before, now = _read(file), yaml.safe_load(dump(SCHEMA, config))
    names = [list(settings["cross_validation"].get("strategies") or {}) for settings in (before, now)]
    kept, wanted = _leaves(before), _leaves(now)
    for key in [*wanted, *kept]:
        joins = key.startswith(f"{STRATEGIES}.") and key.split(".")[2] not in names[0]
        free = key == STRATEGIES or any(key == name or key.startswith(f"{name}.") for name in MAY_CHANGE)
        if not (joins or free) and kept.get(key, "nothing") != wanted.get(key, "nothing"):
            raise _other(file, key, kept.get(key, "nothing"), wanted.get(key, "nothing"))
    if names[0] and names[0][0] != names[1][0]:
        raise ConfigError(
            f"{file}: the first of {STRATEGIES} was {names[0][0]}, now it is {names[1][0]}; leave the order, the final "
            "model is made as the first"
        )


def _other(file: Path, key: str, old: object, new: object) -> ConfigError:
    return ConfigError(
        f"{file} was made with {key} {old}, now it is {new}; go on with the same settings, or choose another --out"
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read ({one_line(error)}); restore it, or choose another --out") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("cross_validation"), dict):
        raise ConfigError(f"{file} is no configuration of folds; choose another --out")
    return settings


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found
