"""What ``aar-dist convert --list`` prints: each converter with what it reads and makes, for people or for programs.

[Converter] -> a table at most 120 columns wide | JSON
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from aar_dist.recordings.converter import Converter

WIDEST = 120


def as_table(converters: Sequence[Converter], width: int | None = None) -> str:
    """A block of rows for each converter, as wide as the terminal where that is not told, and no wider than 120."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for converter in converters:
        if table.row_count:
            table.add_row()
        for number, (field, text) in enumerate(asdict(converter.about).items()):
            table.add_row("" if number else converter.name, field, text)
    terminal = Console()
    width = min(WIDEST, width or (terminal.width if terminal.is_terminal else WIDEST))
    page = Console(file=io.StringIO(), width=width, force_terminal=terminal.is_terminal, markup=False, highlight=False)
    with page.capture() as shown:
        page.print(table)
    return "\n".join(line.rstrip() for line in shown.get().splitlines())


def as_json(converters: Sequence[Converter]) -> str:
    """A list of objects: ``name``, what ``--label`` may be, which flags it takes, and what the table tells."""
    return json.dumps(
        [{"name": c.name, "label": list(c.labels), "takes": list(c.takes), **asdict(c.about)} for c in converters],
        indent=1,
        ensure_ascii=False,
    )
