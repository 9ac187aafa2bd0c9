"""A map of the embeddings: windows that the model finds alike lie close together.

embeddings.parquet (n, d) -> at most MOST windows -> principal components -> t-SNE (n, 2) -> clouds by class, by subject
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from aar_dist.base.hashing import hash_np, word
from aar_dist.base.timelines import PALETTE, class_colours
from aar_dist.recordings.names import natural
from aar_dist.report.charts import Line, Panel, cloud_each, cloud_panel
from aar_dist.report.predicted import read_parquet

MOST, FEWEST_FOR_TSNE, COMPONENTS, SEED = 2000, 40, 30, 578
FEW = len(PALETTE)
"""Names that colours tell apart."""


@dataclass(frozen=True)
class Colouring:
    """One map by one kind of name."""

    title: str
    panel: Panel | None = None
    """None if there are too many names to tell colours apart: each has a small map then."""
    legend: list[tuple[str, str]] = field(default_factory=list)
    """Name and colour."""
    each: list[Panel] = field(default_factory=list)


@dataclass(frozen=True)
class Map:
    """Two or three colourings of one map."""

    colourings: list[Colouring]
    method: str
    shown: int
    n: int


def embedding_map(file: Path, classes: list[str] | None) -> Map | None:
    """The map, the same whenever it is drawn; None without a file or with fewer than three windows."""
    if not file.is_file():
        return None
    table = read_parquet(file, ("dataset", "subject", "label", "embedding"))
    n = table.num_rows
    if n < 3:
        return None
    keep = np.sort(np.argsort(hash_np(SEED, word("map"), np.arange(n)), kind="stable")[:MOST])
    table = table.take(keep)
    vectors = np.array(table["embedding"].to_pylist(), np.float64)
    places, method = flattened(vectors)
    colourings = [("by class", table["label"].to_pylist(), classes), ("by subject", table["subject"].to_pylist(), None)]
    if len(set(table["dataset"].to_pylist())) > 1:
        colourings.append(("by data set", table["dataset"].to_pylist(), None))
    if classes is None:
        colourings = colourings[1:]
    made = [_coloured(title, places, names, order) for title, names, order in colourings]
    return Map(made, method, len(keep), n)


def flattened(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """(n, 2) and the name of the method. One thread, so that sums are added in one order."""
    with threadpool_limits(limits=1):
        components = min(COMPONENTS, *vectors.shape)
        reduced = PCA(components, svd_solver="full").fit_transform(np.nan_to_num(vectors))
        if len(vectors) < FEWEST_FOR_TSNE or components < 2:
            wide = np.zeros((len(vectors), 2))
            wide[:, : min(2, components)] = reduced[:, :2]
            return wide, "principal components"
        tsne = TSNE(2, perplexity=min(30.0, len(vectors) / 4), init="pca", max_iter=500, random_state=SEED)
        return np.asarray(tsne.fit_transform(reduced), np.float64), "t-SNE of the principal components"


def _coloured(title: str, places: NDArray[np.float64], names: list[Any], order: list[str] | None) -> Colouring:
    told = np.array(["no label" if name is None else str(name) for name in names])
    groups = [*(order or []), *sorted(set(told) - set(order or []), key=natural)]
    colours = dict(zip(groups, class_colours(len(groups)), strict=True))
    lines = [
        Line([(float(x), float(y)) for x, y in places[told == name]], "", name, colours[name])
        for name in groups
        if (told == name).any()
    ]
    if len(lines) > FEW:
        return Colouring(title, each=cloud_each(lines, "windows"))
    alt = f"Map of {len(told)} windows coloured {title}: {', '.join(one.title for one in lines)}"
    return Colouring(title, cloud_panel(title, lines, alt), [(one.title, one.colour) for one in lines])
