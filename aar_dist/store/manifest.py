"""What ``manifest.json`` says of a version, read with suspicion: a store may be anybody's.

{"name", "version", "published", "code", …, "files": {name: sha256}, "bytes": {name: size}}     a version
{"name", "version", "removed": date, "why"}                 a number that is spent: nobody gets it again

bytes -> parsed, checked -> dict | CheckpointError
"""

import json
import re
from datetime import UTC, datetime
from typing import Any

from aar_dist.base.errors import CheckpointError, one_line

WEIGHTS, CONFIG, CARD, METRICS, MANIFEST = (
    "model.safetensors",
    "config.yaml",
    "card.md",
    "metrics.json",
    "manifest.json",
)
FILES = (WEIGHTS, CONFIG, CARD, METRICS)
MOST_TEXT = 20_000_000
"""Bytes of any file but the weights, and of the manifest itself."""
NAME = re.compile(r"(?!\.+$)[\w.-]{1,200}")
"""Of a model: one folder, and none above it."""
ADDRESS = re.compile(r"(?P<store>.+)/models/(?P<name>[\w.-]+)/(?P<version>[1-9][0-9]{0,8})/?")
"""Folder or URL of a version."""
_FILE = re.compile(r"(?!\.)[\w.-]{1,200}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Removed(CheckpointError):
    """The version was there once, and was taken out of the store."""


def now() -> str:
    """The date as manifests tell it: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(text: bytes, where: str) -> dict[str, Any]:
    """A manifest that says nothing outrageous.

    Args:
        text: What was read.
        where: Of the file, for messages.

    Raises:
        Removed: it marks a number whose version was taken out.
        CheckpointError: it is none, or names files that no version has.
    """
    try:
        told = json.loads(text)
        problem = _problem(told)
    except (ValueError, RecursionError) as error:
        problem, told = one_line(error), {}
    if problem:
        raise CheckpointError(f"{where.removesuffix('/' + MANIFEST)} is no stored model: {MANIFEST}: {problem}")
    if "removed" in told:
        why = f" ({told['why']})" if told.get("why") else ""
        raise Removed(f"store://{told['name']}@{told['version']} was removed on {told['removed']}{why}")
    return dict(told)


def spent(name: str, number: int, why: str) -> bytes:
    """What stands in place of the manifest of a version that is taken out."""
    return _text({"name": name, "version": number, "removed": now(), "why": why})


def as_bytes(manifest: dict[str, Any]) -> bytes:
    """A manifest as it is written."""
    return _text(manifest)


def _text(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _problem(told: Any) -> str | None:
    """The first thing that is wrong, in words."""
    if not isinstance(told, dict):
        return f"holds a {type(told).__name__}, expected an object"
    name, version = told.get("name"), told.get("version")
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        return f"name is {name!r:.80}, expected letters, digits, '-', '_' and '.'"
    if type(version) is not int or not 1 <= version < 10**9:
        return f"version is {version!r:.80}, expected a number from 1 on"
    if "removed" in told:
        return None
    return _problem_of_files(told.get("files")) or _problem_of_sizes(told)


def _problem_of_files(files: Any) -> str | None:
    if not isinstance(files, dict) or len(files) > 100:
        return "files is no list of names and hashes"
    for name, sha256 in files.items():
        if not _FILE.fullmatch(name) or name == MANIFEST:
            return f"files names {name!r:.80}, which is no plain file of a version"
        if not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
            return f"files: {name} has {sha256!r:.80}, expected a sha256"
    return next((f"lists no {name}" for name in FILES if name not in files), None)


def _problem_of_sizes(told: dict[str, Any]) -> str | None:
    """Versions of before sizes were told have none."""
    sizes = told.get("bytes", {})
    if not isinstance(sizes, dict):
        return "bytes is no list of names and sizes"
    for name, size in sizes.items():
        if type(size) is not int or size < 0:
            return f"bytes: {name} has {size!r:.80}, expected a number of bytes"
        if name != WEIGHTS and size > MOST_TEXT:
            return f"bytes: {name} has {size}, expected at most {MOST_TEXT}"
    return None
