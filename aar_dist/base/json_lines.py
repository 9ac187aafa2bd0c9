"""Files with a JSON object on each line, which several processes add to, and whose lines a kill or a full disk may cut.

value -> append -> {"step": 1, …}\\n;   file -> read -> [value, …]
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def append(path: Path, value: Mapping[str, Any]) -> None:
    """Add a line, in one write, so that lines of several processes do not mix. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(value).encode() + b"\n"
    with open(path, "a+b", buffering=len(line) + 1) as file:
        # A line that a full disk has cut off must not swallow this one.
        torn = file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n"
        file.write(b"\n" * bool(torn) + line)


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; none where there is no file."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found
