"""How much a frozen backbone tells: simple methods on its embeddings, in the same folds and on the same windows.

    embeddings (n, D) of the train and the validation side, labels -> a probe, chosen by the validation side
    embeddings (m, D) -> probabilities (m, K), or values (m,)

``linear`` is logistic regression (ridge regression of a target), ``knn`` asks the nearest neighbours by cosine. Both
learn from the train side alone; how strong or how many is what says the validation subjects' labels best. ``random``
is ``linear`` on a backbone of random weights: what the architecture tells before it has learned anything.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.baselines import ClassWeight

Floats = NDArray[np.float32]
STRENGTHS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.1, 1.0)
"""Inverse regularisation of logistic regression; of ridge regression, the regularisation for each window. The
strong ones are what hundreds of numbers of a few animals need."""
NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100)
STEPS = 500
"""Of the solver: beyond them the predictions change no more."""
SUFFIX = "_probe"
RANDOM = "random"
"""The probe whose backbone has random weights."""


@dataclass(frozen=True)
class Side:
    """Embeddings and labels of one side of a fold; n windows."""

    vectors: Floats
    """(n, D)."""
    label: NDArray[Any]
    """(n,) int64 class, or float32 target."""


@dataclass(frozen=True)
class Fitted:
    """A probe that has learned, and which of the candidates it is."""

    say: Callable[[Floats], Floats]
    """Vectors (n, D) -> probabilities (n, K), or values (n,)."""
    chosen: dict[str, float]
    """The setting that won, and every candidate's loss on the validation side."""


Candidate = tuple[float, Callable[[Floats], Floats]]
"""A setting, and the probe with it: vectors (n, D) -> probabilities (n, K) or values (n,)."""


def probe(
    name: str, train: Side, validation: Side, n_classes: int | None, *, class_weight: ClassWeight = None
) -> Fitted:
    """Learn from the train side, choose by the validation side.

    Without validation windows the setting in the middle is taken.

    Args:
        name: One of :data:`PROBES`.
        train: What it learns from.
        validation: What chooses.
        n_classes: K; classes that the train side lacks get probability 0. None for a target.
        class_weight: ``balanced`` gives every class the same share, in learning and in choosing.
    """
    scaler = StandardScaler().fit(train.vectors)
    given = Side(scaler.transform(train.vectors), train.label)
    candidates = list(PROBES[name](given, n_classes, class_weight))
    best, losses = candidates[len(candidates) // 2], {}
    if len(validation.label):
        vectors = scaler.transform(validation.vectors)
        weight = _weights(train.label, validation.label, n_classes, class_weight)
        losses = {f"{c[0]:g}": _loss(c[1](vectors), validation.label, weight) for c in candidates}
        best = candidates[int(np.argmin(list(losses.values())))]
    return Fitted(lambda vectors: best[1](scaler.transform(vectors)), {"chosen": best[0], **losses})


def linear(train: Side, n_classes: int | None, class_weight: ClassWeight) -> Iterator[Candidate]:
    """Logistic regression from the strongest penalty to the weakest; ridge regression of a target."""
    if n_classes is None:
        for strength in STRENGTHS:
            ridge = Ridge(alpha=strength * len(train.label)).fit(train.vectors, train.label)
            yield strength, lambda x, model=ridge: model.predict(x).astype(np.float32)  # type: ignore[misc]
        return
    if len(np.unique(train.label)) < 2:
        yield 1.0, lambda x: _spread(np.ones((len(x), 1)), np.unique(train.label), n_classes)
        return
    # Each goes on from where the one before ended: a tenth of the steps.
    model = LogisticRegression(max_iter=STEPS, class_weight=class_weight, warm_start=True)
    for strength in STRENGTHS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=strength).fit(train.vectors, train.label)
        yield strength, _logits(model.coef_.copy(), model.intercept_.copy(), model.classes_, n_classes)


def knn(train: Side, n_classes: int | None, class_weight: ClassWeight) -> Iterator[Candidate]:
    """Shares of the nearest windows' labels, or the mean of their targets, by cosine."""
    index = NearestNeighbors(metric="cosine", algorithm="brute").fit(train.vectors)
    value = train.label[:, None].astype(np.float64)
    if n_classes is not None:
        weight = _weights(train.label, train.label, n_classes, class_weight)
        value = np.eye(n_classes)[train.label] * weight[:, None]
    for k in (k for k in NEIGHBOURS if k <= len(train.label)):
        yield k, lambda x, k=k: _votes(index, value, x, k, n_classes)  # type: ignore[misc]


PROBES: dict[str, Callable[[Side, int | None, ClassWeight], Iterator[Candidate]]] = {
    "linear": linear,
    "knn": knn,
    RANDOM: linear,
}


def chosen(asked: Sequence[str], *, pretrained: bool) -> tuple[str, ...]:
    """The probes that a configuration asks for; ``auto``: linear and knn where there is a model to start from.

    Raises:
        ConfigError: an unknown name, one named twice, or no model to probe.
    """
    if list(asked) in (["auto"], ["none"], []):
        return ("linear", "knn") if "auto" in asked and pretrained else ()
    for name in asked:
        if name in ("auto", "none"):
            raise ConfigError(f"probes: {name} stands alone, got {', '.join(asked)}")
        if name not in PROBES:
            raise ConfigError(f"no probe is called {name!r}; there are {', '.join(PROBES)}")
        if asked.count(name) > 1:
            raise ConfigError(f"probes: {name} is named twice")
        if not pretrained:
            raise ConfigError(f"probe {name} looks at a stored model; name one with init_from, or set probes to none")
    return tuple(asked)


def _logits(
    coefficients: NDArray[np.float64], intercept: NDArray[np.float64], classes: NDArray[Any], n_classes: int
) -> Callable[[Floats], Floats]:
    """Softmax of a linear function; of two classes the coefficients are those of the second."""
    if len(classes) == 2:
        coefficients, intercept = (np.concatenate([np.zeros_like(x), x]) for x in (coefficients, intercept))

    def say(x: Floats) -> Floats:
        logits = x @ coefficients.T + intercept
        share = np.exp(logits - logits.max(1, keepdims=True))
        return _spread(share / share.sum(1, keepdims=True), classes, n_classes)

    return say


def _votes(index: Any, value: NDArray[np.float64], x: Floats, k: int, n_classes: int | None) -> Floats:
    near = value[index.kneighbors(x, n_neighbors=k, return_distance=False)]  # (n, k, 1 or K)
    if n_classes is None:
        mean: Floats = near.mean(1)[:, 0].astype(np.float32)
        return mean
    share: Floats = (near.sum(1) / near.sum((1, 2))[:, None]).astype(np.float32)
    return share


def _spread(share: NDArray[np.float64], classes: NDArray[Any], n_classes: int) -> Floats:
    """(n, classes that there are) -> (n, K)."""
    made = np.zeros((len(share), n_classes), np.float32)
    made[:, classes] = share
    return made


def _weights(
    train: NDArray[Any], label: NDArray[Any], n_classes: int | None, class_weight: ClassWeight
) -> NDArray[np.float64]:
    """(n,) what a window counts: as much as the train side's windows of its class together; 1 without weights."""
    if n_classes is None or class_weight is None:
        return np.ones(len(label))
    counts = np.bincount(train, minlength=n_classes)
    weight: NDArray[np.float64] = (1.0 / np.maximum(counts, 1))[label] * len(train)
    return weight


def _loss(said: Floats, label: NDArray[Any], weight: NDArray[np.float64]) -> float:
    """Squared error of values, or of probabilities (Brier): defined where a share is 0, unlike the logarithm."""
    if said.ndim == 1:
        return float(np.average((said - label) ** 2, weights=weight))
    error = ((said - np.eye(said.shape[1])[label]) ** 2).sum(1)
    return float(np.average(error, weights=weight))
