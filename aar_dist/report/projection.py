"""Places in the plane for vectors.

(n, d) -> principal components, with their share of the variance;  -> UMAP, where umap-learn is installed
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

FEWEST_FOR_UMAP = 40
NEIGHBOURS = 15
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """One picture."""

    title: str
    about: str
    """What its axes are."""
    places: Floats
    """(n, 2)."""


def projections(vectors: Floats, seed: int) -> list[Projection]:
    """Principal components, then UMAP (McInnes, Healy & Melville, 2018) if umap-learn is installed. One thread, so that
    sums are added in one order."""
    with threadpool_limits(limits=1):
        return [principal(vectors), *umap(vectors, seed)]


def principal(vectors: Floats) -> Projection:
    """The two directions in which vectors (n, d) differ most."""
    n_components = min(2, *vectors.shape)
    pca = PCA(n_components, svd_solver="full")
    places = np.zeros((len(vectors), 2))
    with np.errstate(invalid="ignore"):  # of vectors that are all alike
        places[:, :n_components] = pca.fit_transform(vectors)
    shares = [f"{100 * share:.0f}\u00a0%" for share in np.nan_to_num(pca.explained_variance_ratio_)]
    return Projection("principal components", f"{' and '.join(shares)} of the variance", places)


def umap(vectors: Floats, seed: int) -> list[Projection]:
    """Neighbours stay neighbours; nothing where umap-learn is not installed, or of few vectors."""
    if len(vectors) < FEWEST_FOR_UMAP:
        return []
    try:
        from umap import UMAP
    except ImportError:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a seed that leaves it one thread, which is what we want
        made = UMAP(n_neighbors=NEIGHBOURS, random_state=seed, n_jobs=1).fit_transform(vectors)
    return [Projection("UMAP", "axes and distances between clumps mean nothing", np.asarray(made, np.float64))]
