"""What a store says of the model that a run began with, or left there: which weights, from which shards."""

import json
import re
from pathlib import Path
from typing import Any

from aar_dist.base.errors import StorageError
from aar_dist.base.local import Local
from aar_dist.base.remote import Patience, Remote, is_url
from aar_dist.report.shard_sets import found_from

ASKED = Patience(read_s=2.0)
"""A page does not wait for a server that is gone."""


def stored_model(reference: str | None, store: str | None, run: Path) -> dict[str, Any]:
    """The manifest of ``store://name@3``; empty where it cannot be read any more (another store, ``latest``).

    Nothing is verified here: the page tells the hashes, ``aar-dist verify`` compares them.
    """
    match = re.fullmatch(r"store://([\w.-]+)@(\d+)", reference or "")
    if not match or not store:
        return {}
    place = Remote(store, ASKED) if is_url(store) else Local(found_from(store, run))
    try:
        told = json.loads(place.read(f"models/{match[1]}/{match[2]}/manifest.json"))
    except (StorageError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def told_of(manifest: dict[str, Any]) -> dict[str, str | None]:
    """Facts for the page."""
    files = manifest.get("files")
    return {
        "sha256 of its weights": files.get("model.safetensors") if isinstance(files, dict) else None,
        "its code version": manifest.get("code"),
        "shards it was trained on": manifest.get("shards"),
    }
