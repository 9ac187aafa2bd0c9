"""What was chosen in each fold, as a Markdown table.

methods of results.json -> | method | seed | fold | chosen | validation losses |
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aar_dist.evaluation.nested.grid import told
from aar_dist.evaluation.review.wording import table

HEADS = ("method", "seed", "fold", "chosen", "validation loss of each")


def choices_table(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown; none where nothing was chosen."""
    rows = choices_rows(methods)
    if not rows:
        return []
    return [
        "",
        "Chosen inside each fold by the loss on its validation subjects; the others were not tested:",
        "",
        *table(HEADS, rows),
    ]


def choices_rows(methods: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells under :data:`HEADS`."""
    return [
        [method["name"], str(run["seed"]), str(run["fold"]), _chosen(run["choice"]), _losses(run["choice"])]
        for method in methods
        for run in method["runs"]
        if run.get("choice")
    ]


def _chosen(choice: Mapping[str, Any]) -> str:
    return told(choice["candidates"][choice["chosen"]]["settings"])


def _losses(choice: Mapping[str, Any]) -> str:
    """``lr 0.0001: 0.512; lr 0.001: 0.431``."""
    each = [
        f"{told(one['settings'])}: {'diverged' if one['val_loss'] is None else format(one['val_loss'], '.4f')}"
        for one in choice["candidates"]
    ]
    return "; ".join(each)
