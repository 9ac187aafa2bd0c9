"""The picture of all folds that a terminal has room for.

View -> a column for each fold | a row for each method, share and seed, counted | … method and share | … method
below: what every machine does now, what failed, what was tried again
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from aar_dist.evaluation.fold_standing import Begun, Standing, last_step

MACHINES = 6
"""Lines for what machines do; the others are counted."""
FRAME_LINES = 6
"""Of a table: title, borders, heads, and one for the cursor."""
LEVELS = 4


@dataclass(frozen=True)
class View:
    """What there is to show."""

    title: str
    rows: Mapping[tuple[str, ...], Sequence[Standing]]
    """(method, share, seed) -> its folds."""
    machines: Mapping[str, Sequence[Begun]]
    failed: Sequence[str]
    news: str


def draw(view: View, width: int, height: int, level: int = 0) -> tuple[Any, int]:
    """The most detailed picture that there is room for, and how detailed it is.

    Args:
        level: Begin with this one: where there was no room it stays so, that the picture does not jump.
    """
    below = _below(view, width)
    for at in range(level, LEVELS):
        table = _each_fold(view) if at == 0 else _counted(view, at)
        wide = Console(width=1000)
        fits = Measurement.get(wide, wide.options, table).maximum <= width
        if at == LEVELS - 1 or (fits and table.row_count + FRAME_LINES + len(below) <= height):
            what, _, when = view.title.partition("(")
            title = f"{what}{'of each fold' if at == 0 else f'of {_folds(view)} folds'} ({when}"
            return Group(Text(shortened(title, width), style="italic"), table, *below), at
    raise AssertionError("the last level is drawn whatever the room")


def shortened(text: str, width: int) -> str:
    """At most so many characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def cell(one: Standing) -> str:
    """How a fold stands, for a column of its own."""
    if one.state == "failed":
        return "[red]failed[/red]"
    if one.state == "done":
        return "[green]done[/green]" if one.value is None else f"[bold]{one.value:.3f}[/bold]"
    if one.step is not None:
        return f"[dim]step {one.step}[/dim]"
    if one.job.candidates and one.state == "trains":
        return f"[dim]{one.tried} of {len(one.job.candidates)}[/dim]"
    return "[dim]…[/dim]" if one.state == "trains" else "[dim]·[/dim]"


def _each_fold(view: View) -> Table:
    columns = dict.fromkeys(str(one.job.fold) for row in view.rows.values() for one in row)
    table = Table()
    table.add_column("")
    for fold in columns:
        table.add_column(f"fold {fold}", justify="right")
    for names, row in view.rows.items():
        of = {str(one.job.fold): cell(one) for one in row}
        table.add_row(_called(names), *(of.get(fold, "") for fold in columns))
    return table


def _counted(view: View, level: int) -> Table:
    """A row for each method, share and seed; for each method and share; for each method."""
    table = Table()
    table.add_column("")
    for name in ("done", "now", "failed", "mean", "least", "most"):
        table.add_column(name, justify="right")
    together: dict[tuple[str, ...], list[Standing]] = {}
    for names, row in view.rows.items():
        together.setdefault(names[: LEVELS - level], []).extend(row)
    for names, row in together.items():
        table.add_row(_called(names), *_numbers(row))
    return table


def _folds(view: View) -> int:
    return len({one.job.fold for row in view.rows.values() for one in row})


def _numbers(row: Sequence[Standing]) -> list[str]:
    n = Counter(one.state for one in row)
    values = [one.value for one in row if one.value is not None]
    scores = [f"{of(values):.3f}" for of in (statistics.mean, min, max)] if values else ["", "", ""]
    failed = f"[red]{n['failed']}[/red]" if n["failed"] else ""
    return [f"{n['done']}/{len(row)}", str(n["trains"] or ""), failed, f"[bold]{scores[0]}[/bold]", *scores[1:]]


def _called(names: Sequence[str]) -> str:
    return "  ".join(filter(None, names))


def _below(view: View, width: int) -> list[Text]:
    """What every machine does, what failed, what is tried again."""
    lines = [
        f"{name} ({len(of)}): {'; '.join(_doing(one) for one in of)}"
        for name, of in sorted(view.machines.items())[:MACHINES]
    ]
    rest = sorted(view.machines.items())[MACHINES:]
    if rest:
        lines.append(f"{len(rest)} more machines: {sum(len(of) for _, of in rest)} runs")
    lines += [f"failed ({len(view.failed)}): {'; '.join(view.failed)}"] if view.failed else []
    lines += [view.news] if view.news else []
    return [Text(shortened(line, width)) for line in lines]


def _doing(one: Begun) -> str:
    step = last_step(one.job.folder)
    return f"{one.job.name}{f' step {step}' if step else ''}"
