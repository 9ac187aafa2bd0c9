"""Maps of the embeddings: windows that the model finds alike lie close together.

embeddings.parquet (n, d) -> at most MOST windows -> principal components, UMAP -> points with their origin
                          -> nearest neighbours of other subjects -> how often they have the same class
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.hashing import hash_np, word
from aar_dist.base.timelines import PALETTE, class_colours
from aar_dist.recordings.names import natural
from aar_dist.report.charts import Line, Panel, cloud_each, cloud_scales
from aar_dist.report.neighbours import Alike, K, alike
from aar_dist.report.predicted import read_parquet
from aar_dist.report.projection import Projection, projections
from aar_dist.report.svg import dots, path, picture

MOST, SEED = 2000, 578
FEW = len(PALETTE)
"""Names that colours tell apart."""
COLUMNS = ("dataset", "subject", "recording", "start_s", "stop_s", "label", "embedding")
NO_LABEL = "no label"
WORDS = {"class": ("class", "classes"), "subject": ("subject", "subjects"), "dataset": ("data set", "data sets")}
Names = NDArray[np.str_]


@dataclass(frozen=True)
class Colouring:
    """The points by one kind of name."""

    key: str
    """``class``, ``subject`` or ``dataset``: of the switch, and of a point's colour."""
    title: str
    names: Names
    """(n,) of the points."""
    groups: list[str]
    """In order."""
    alike: Alike | None
    """Whether neighbours have the same name; None where that cannot be asked."""
    each: list[Panel] = field(default_factory=list)
    """A small map for each name, where there are more of them than colours."""

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Name and colour; empty where there are more names than colours."""
        many = len(self.groups) > FEW
        return [] if many else list(zip(self.groups, class_colours(len(self.groups)), strict=True))

    @property
    def told(self) -> str:
        """How separable the names are, in words."""
        apart = "other recordings" if self.key == "subject" else "other subjects"
        one, many = WORDS[self.key]
        if self.alike is None:
            return ""
        return (
            f"By its {K} nearest neighbours in {apart}, a window is given its own {one} {self.alike.right:.0%} of the "
            f"time (mean over {len(self.alike.of)} {many}; by chance {self.alike.chance:.0%})."
        ).replace("%", "\u00a0%")


@dataclass(frozen=True)
class Map:
    """The same windows in one or two pictures, and what they can be coloured by."""

    pictures: list[Panel]
    colourings: list[Colouring]
    shown: int
    n: int

    @property
    def switch(self) -> list[Colouring]:
        """Those that colours can tell."""
        return [one for one in self.colourings if one.legend]


def embedding_map(file: Path) -> Map | None:
    """The map, the same whenever it is drawn; None without a file or with fewer than three windows."""
    if not file.is_file():
        return None
    table = read_parquet(file, COLUMNS)
    n = table.num_rows
    if n < 3:
        return None
    # In an order that nothing has: of points that lie on one another, any may be the upper one.
    table = table.take(np.argsort(hash_np(SEED, word("map"), np.arange(n)), kind="stable")[:MOST])
    columns = {name: table[name].to_pylist() for name in COLUMNS}
    vectors = np.nan_to_num(np.array(columns["embedding"], np.float64))
    made = projections(vectors, SEED)
    colourings = coloured(columns, vectors, made[-1].places)
    pictures = [_picture(one, columns, colourings) for one in made]
    return Map(pictures, colourings, len(vectors), n)


def coloured(
    columns: dict[str, list[Any]], vectors: NDArray[np.float64], places: NDArray[np.float64]
) -> list[Colouring]:
    """By class, where labels are classes, by subject, and by data set, where there are several."""
    subject, recording = np.array(columns["subject"]), _text(columns["recording"])
    recording = np.char.add(np.char.add(subject, "\0"), recording)
    made = []
    for key, title, names, apart in (
        ("class", "by class", _text(columns["label"]), subject),
        ("subject", "by subject", subject, recording),
        ("dataset", "by data set", _text(columns["dataset"]), subject),
    ):
        groups = sorted({*names.tolist()} - {NO_LABEL}, key=natural) + [NO_LABEL] * (NO_LABEL in names)
        if (key == "class" and not _classes(columns["label"])) or (key == "dataset" and len(groups) == 1):
            continue
        known = names != NO_LABEL
        score = alike(vectors[known], names[known], apart[known])
        each = _each(places, names, groups) if len(groups) > FEW else []
        made.append(Colouring(key, title, names, groups, score, each))
    return made


def _text(values: list[Any]) -> Names:
    return np.array([NO_LABEL if value is None else str(value) for value in values])


def _classes(labels: list[Any]) -> bool:
    """Whether any label is a class, not a target or none."""
    return any(isinstance(label, str) for label in labels)


def _each(places: NDArray[np.float64], names: Names, groups: list[str]) -> list[Panel]:
    lines = [Line([(float(x), float(y)) for x, y in places[names == name]], "", name) for name in groups]
    return cloud_each(lines, "windows")


def _picture(of: Projection, columns: dict[str, list[Any]], colourings: list[Colouring]) -> Panel:
    """Every point with its origin as a title and a colour for each colouring."""
    x, y = cloud_scales(of.places.tolist())
    colours = [(one.key, dict(one.legend), one.names.tolist()) for one in colourings if one.legend]
    parts = []
    for k, (a, b) in enumerate(of.places.tolist()):
        style = ";".join(f"--{key}:{legend[names[k]]}" for key, legend, names in colours)
        d = dots([(round(x.at(a), 1), round(100 - y.at(b), 1))])
        parts.append(path(d, "point", _origin(columns, k), style=style))
    alt = f"{of.title} of {len(parts)} windows, coloured {' or '.join(one.title for one in colourings)}"
    return Panel(of.title, picture(parts, alt, "cloud"), [], [], of.about)


def _origin(columns: dict[str, list[Any]], k: int) -> str:
    """Subject with data set, recording, time, label."""
    label = columns["label"][k]
    told = label if isinstance(label, str) else "" if label is None else f"{label:g}"
    time = f"{columns['start_s'][k]:g} to {columns['stop_s'][k]:g} s"
    return " · ".join(filter(None, (columns["subject"][k], columns["recording"][k], time, told)))
