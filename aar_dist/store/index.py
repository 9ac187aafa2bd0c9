"""What readers who cannot list find instead: files that need not be up to date.

    models.json                  {"models": [names]}
    models/<name>/newest.json    {"version": 7}: begin there and ask for 8, 9, … until there is none

Publishers write both after their version stands, without waiting for each other. A number that another writer sets back
costs readers some questions more. A name must not be lost, so who adds one looks again after writing.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aar_dist.base.errors import StorageError
from aar_dist.base.local import Place
from aar_dist.base.remote import Missing, Refused
from aar_dist.base.storage import json_bytes
from aar_dist.store.manifest import NAME

MODELS, NEWEST = "models.json", "newest.json"
ROUNDS = 20
"""Most times that a list of names is written again because others add some meanwhile."""


def announce(place: Place, name: str, number: int, listed: Callable[[], list[str]]) -> None:
    """Tell of a version that stands. It stands without being told of, so that nothing fails here.

    Args:
        listed: All names that there are by now.
    """
    with suppress(StorageError):
        if newest(place, name) < number:
            place.write(_newest(name), json_bytes({"version": number}))
        if name in names(place):
            return
        for _ in range(ROUNDS):
            there = listed()
            place.write(MODELS, json_bytes({"models": there}))
            if listed() == there:
                return


def newest(place: Place, name: str) -> int:
    """The number to look from; 0 where none is told."""
    told = _read(place, _newest(name)).get("version")
    return told if type(told) is int and 0 < told < 10**9 else 0


def names(place: Place) -> list[str]:
    """The models that are told of."""
    told = _read(place, MODELS).get("models")
    good = told if isinstance(told, list) else []
    return sorted({name for name in good if isinstance(name, str) and NAME.fullmatch(name)})


def _newest(name: str) -> str:
    return f"models/{name}/{NEWEST}"


def _read(place: Place, name: str) -> dict[str, Any]:
    with suppress(Missing, Refused, ValueError, RecursionError):
        told = json.loads(place.read(name))
        return told if isinstance(told, dict) else {}
    return {}
