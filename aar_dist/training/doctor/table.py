"""Findings as a table for people; what many hosts share is one row."""

import shutil
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from aar_dist.base.wording import some
from aar_dist.training.doctor.examine import Found
from aar_dist.training.doctor.finding import Finding

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}
WIDTH = 132
"""Columns where the output is no terminal."""


def show(found: Sequence[Found], *, many: bool) -> None:
    """Print; the last line counts."""
    console = Console(width=None if Console().is_terminal else shutil.get_terminal_size((WIDTH, 40)).columns)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for _ in range(4 if many else 3):
        table.add_column(overflow="fold")
    for finding, where in grouped(found):
        text = finding.found + (f"\n-> {finding.remedy}" if finding.remedy else "")
        state = f"[{STYLES[finding.state]}]{finding.state}[/]"
        table.add_row(state, finding.check, *([where] if many else []), _plain(text))
    console.print(table, highlight=False)
    console.print(summary(found), highlight=False)


def grouped(found: Sequence[Found]) -> list[tuple[Finding, str]]:
    """Each finding once, with its hosts, in the order of the first of its check."""
    everywhere = {each.host for each in found} - {"here"}
    where: dict[Finding, list[str]] = {}
    for each in found:
        where.setdefault(each.finding, []).append(each.host)
    order = list(dict.fromkeys(each.finding.check for each in found))
    rows = sorted(where, key=lambda finding: order.index(finding.check))
    return [(each, "all" if {*where[each]} == everywhere else some(where[each])) for each in rows]


def summary(found: Sequence[Found]) -> str:
    """How it stands in a line."""
    states = [each.state for each in dict.fromkeys(each.finding for each in found)]
    problems, warnings = states.count("problem"), states.count("warning")
    if problems:
        return f"{problems} problem(s), {warnings} warning(s): a launch would fail"
    return f"fit for training, {warnings} warning(s)" if warnings else "fit for training"


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
