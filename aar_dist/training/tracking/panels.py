"""What shows a run well: the panels of the page that `aar-dist dashboard` writes, and of the workspace it saves at W&B.

Section -> Panel -> keys of metrics.jsonl (``*`` stands for a data set, or a machine)
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Numbers that are read together, over the step."""

    title: str
    keys: tuple[str, ...]
    log: bool = False
    """A logarithmic axis, where the values span more than a decade."""
    percent: bool = False
    """Shares, shown in percent."""
    marks: tuple[str, ...] = ()
    """Keys whose presence in a row, or whose growth, is an event to mark: spikes, steps left out."""

    def found(self, keys: Iterable[str]) -> list[str]:
        """Those of ``keys`` that belong here, in the order of the definition."""
        there = sorted(keys)
        return [key for pattern in self.keys for key in there if re.fullmatch(regex(pattern), key)]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def regex(pattern: str) -> str:
    """The regular expression of a key with ``*``."""
    return re.escape(pattern).replace(r"\*", "[^/]+")


SECTIONS = (
    Section(
        title="Loss",
        panels=(
            Panel(title="training loss", keys=("loss",), log=True, marks=("spike", "skipped_steps")),
            Panel(title="training loss of each data set", keys=("loss/*",), log=True),
            Panel(title="validation loss", keys=("val/loss", "val/loss/*"), log=True),
            Panel(
                title="validation against a straight line", keys=("val/masked_mse", "val/interpolation_mse"), log=True
            ),
        ),
    ),
    Section(
        title="Speed",
        panels=(
            Panel(title="segments a second", keys=("segments_per_s",)),
            Panel(title="model FLOPs utilisation (MFU) [%]", keys=("mfu",), percent=True),
            Panel(title="time spent waiting for the stream [%]", keys=("loader_share",), percent=True),
        ),
    ),
    Section(
        title="Optimizer",
        panels=(
            Panel(title="learning rate", keys=("lr",)),
            Panel(title="gradient norm", keys=("grad_norm",), log=True),
            Panel(title="steps left out so far", keys=("skipped_steps",)),
        ),
    ),
    Section(
        title="Machines",
        panels=(
            Panel(title="processors [%]", keys=("system/*/cpu",)),
            Panel(title="memory [%]", keys=("system/*/memory",)),
            Panel(title="GPUs [%]", keys=("system/*/gpu",)),
            Panel(title="GPU memory [%]", keys=("system/*/gpu_memory",)),
            Panel(title="largest memory of rank 0 [GB]", keys=("memory_gb",)),
        ),
    ),
)
PICTURE, TABLE = "reconstruction", "reconstructions"
