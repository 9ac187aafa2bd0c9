"""The page: one HTML file that needs nothing beside it.

    folders -> a context for each (folds_part.py, run_part.py, embeddings_part.py) -> templates/page.html.j2 -> text

The same folders give the same bytes: nothing is dated here, nothing drawn by chance.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from aar_dist.base import storage
from aar_dist.base.wording import some
from aar_dist.report.embeddings_part import embeddings_part
from aar_dist.report.folders import Embeddings, Folds, Run, read_folder
from aar_dist.report.folds_part import folds_part
from aar_dist.report.run_part import run_part


def page(runs: Sequence[Path]) -> str:
    """The HTML of several folds folders and runs. Raises ``ConfigError`` for a folder that is none of them."""
    folders = [read_folder(path) for path in runs]
    parts = [_part(folder, f"r{number}") for number, folder in enumerate(folders, start=1)]
    title = _title(parts)
    text: str = environment().get_template("page.html.j2").render(parts=_told_apart(parts, runs), title=title)
    return text


def write_page(runs: Sequence[Path], out: Path) -> Path:
    """Write the page of these runs, whole or not at all, replacing what stood there."""
    return storage.write_text(out, page(runs))


def environment() -> Environment:
    """Templates of the package; everything that is put in is escaped."""
    made = Environment(
        loader=PackageLoader("aar_dist.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["percent"] = lambda share: f"{100 * share:.0f}\u00a0%"
    return made


def _part(folder: Folds | Run | Embeddings, anchor: str) -> dict[str, Any]:
    if isinstance(folder, Embeddings):
        return {**embeddings_part(folder), "anchor": anchor}
    part = folds_part(folder) if isinstance(folder, Folds) else run_part(folder)
    return {**part, "anchor": anchor}


def _told_apart(parts: Sequence[dict[str, Any]], runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Where several have one name, the folder stands behind it."""
    times = Counter(part["name"] for part in parts)
    return [
        {**part, "name": f"{part['name']} ({run})"} if times[part["name"]] > 1 else part
        for part, run in zip(parts, runs, strict=True)
    ]


def _title(parts: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(part["name"] for part in parts))
    return some(names, 3)
