"""What the commands of a store have in common."""

import re

from aar_dist.base.cli import Parser
from aar_dist.base.errors import ConfigError
from aar_dist.store.manifest import NAME
from aar_dist.store.registry import ENVIRONMENT, SCHEME, Store, store_of


def parser(act: str, description: str | None) -> Parser:
    """One that knows ``--store``."""
    made = Parser(description, prog=f"aar-dist store {act}")
    made.add_argument("--store", help=f"folder or URL of the store (default: the variable {ENVIRONMENT})")
    return made


def opened(store: str | None) -> Store:
    """The store that is meant. Raises ``CheckpointError`` if none is named."""
    return Store(store_of(store, "aar-dist store"))


def version_of(text: str) -> tuple[str, str]:
    """Name and version (``latest`` or a number) of NAME, NAME@3 or store://NAME@3. Raises ``ConfigError``."""
    name, at, which = text.removeprefix(SCHEME).partition("@")
    if not NAME.fullmatch(name) or (at and not re.fullmatch(r"latest|[1-9][0-9]{0,8}", which)):
        raise ConfigError(f"{text}: expected NAME, NAME@3 or NAME@latest")
    return name, which or "latest"
