"""What a benchmark tells: lines while it works, a file of figures, a table on a page."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def say(what: str) -> None:
    """What it does while it works."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def keep(figures: Mapping[str, Any], path: Path | None) -> str:
    """The figures as JSON, also in a file if one is named."""
    text = json.dumps(figures, indent=1)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)  # not to lose what took minutes
        path.write_text(text + "\n")
    return text


def put(text: str, page: Path, name: str) -> None:
    """Replace what stands between the marks of this name on a page."""
    begin, end = (f"<!-- {name}: {mark} -->" for mark in ("begin", "end"))
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")
