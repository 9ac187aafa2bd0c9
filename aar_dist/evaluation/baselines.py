"""What a network must beat, in the same folds and on the same windows.

    train Windows, test Windows, n_classes -> Predicted(label (n,), probability (n, K))

Of classes: ``majority`` says the commonest one, ``logistic`` is a linear model of the statistics in
:mod:`aar_dist.evaluation.statistics`, ``minirocket`` ridge regression on random convolutions (Dempster, Schmidt & Webb
2021; aeon's implementation, an extra: ``pip install 'aar_dist[baselines]'``). Of targets: ``mean`` says their mean,
``ridge`` is a linear model of the same statistics.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.arrays import Windows
from aar_dist.evaluation.penalty import PLAIN, chosen_strength, logistic_model
from aar_dist.evaluation.statistics import features

ClassWeight = Literal["balanced"] | None
ALPHAS = np.logspace(-3, 3, 10)
SHORTEST = 9
"""Samples of a window that MiniRocket's kernels need."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """The answer of a baseline on n windows."""

    label: NDArray[Any]
    """(n,) int64 class, or float32 value of a target."""
    probability: NDArray[np.float32] | None
    """(n, K); None for a method that has none."""


Baseline = Callable[..., Predicted]


def majority(train: Windows, test: Windows, n_classes: int, **ignored: Any) -> Predicted:
    """The commonest class of the train side, whatever the window; the first of several as common."""
    share = np.bincount(train.label, minlength=n_classes) / max(1, len(train))
    probability = np.tile(share.astype(np.float32), (len(test), 1))
    return Predicted(label=np.full(len(test), share.argmax(), np.int64), probability=probability)


def logistic(
    train: Windows,
    test: Windows,
    n_classes: int,
    *,
    class_weight: ClassWeight = None,
    seed: int = 578,
    subject: NDArray[np.str_] | None = None,
) -> Predicted:
    """Logistic regression on standardised statistics of each channel.

    Args:
        train: Windows of the train side.
        test: Windows to predict.
        n_classes: K; classes that the train side lacks get probability 0.
        class_weight: ``balanced`` gives every class the same share of the loss.
        seed: Of the solver; the default one draws nothing.
        subject: Whose each window of the train side is: its subjects, left out in turn, choose the penalty. None for
            scikit-learn's own.
    """
    if len(np.unique(train.label)) < 2:
        return majority(train, test, n_classes)
    x = features(train.values, train.valid, train.rate_hz)
    strength = PLAIN if subject is None else chosen_strength(x, train.label, subject, class_weight, seed)
    model = logistic_model(strength, class_weight, seed).fit(x, train.label)
    probability = np.zeros((len(test), n_classes), np.float32)
    probability[:, model.classes_] = model.predict_proba(features(test.values, test.valid, test.rate_hz))
    return Predicted(label=probability.argmax(1), probability=probability)


def minirocket(
    train: Windows,
    test: Windows,
    n_classes: int,
    *,
    class_weight: ClassWeight = None,
    seed: int = 578,
    n_kernels: int = 10_000,
) -> Predicted:
    """MiniRocket features and ridge regression, its strength chosen by leave-one-out on the train side.

    Raises:
        ConfigError: aeon is not installed, or windows are too short for its kernels.
    """
    if len(np.unique(train.label)) < 2:
        return majority(train, test, n_classes)
    length = max(train.values.shape[1], test.values.shape[1])
    if length < SHORTEST:
        raise ConfigError(f"baseline minirocket needs windows of {SHORTEST} samples or more, these have {length}")
    kernels = _kernels(n_kernels, seed)
    # Its kernels are drawn for channels that are there; what is absent or padded is 0.
    found = kernels.fit(_series(train, length)).transform(_series(train, length))
    model = make_pipeline(
        StandardScaler(with_mean=False), RidgeClassifierCV(alphas=ALPHAS, class_weight=class_weight)
    ).fit(found, train.label)
    answer = model.predict(kernels.transform(_series(test, length)))
    return Predicted(label=np.asarray(answer, np.int64), probability=None)


def mean(train: Windows, test: Windows, n_classes: int, **ignored: Any) -> Predicted:
    """The mean target of the train side, whatever the window."""
    return Predicted(label=np.full(len(test), train.label.mean(), np.float32), probability=None)


def ridge(train: Windows, test: Windows, n_classes: int, **ignored: Any) -> Predicted:
    """Ridge regression on standardised statistics of each channel, its strength chosen on the train side."""
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=ALPHAS))
    model.fit(features(train.values, train.valid, train.rate_hz), train.label)
    answer = model.predict(features(test.values, test.valid, test.rate_hz))
    return Predicted(label=np.asarray(answer, np.float32), probability=None)


OF_CLASSES: Mapping[str, Baseline] = {"majority": majority, "logistic": logistic, "minirocket": minirocket}
OF_TARGETS: Mapping[str, Baseline] = {"mean": mean, "ridge": ridge}
BASELINES = {**OF_CLASSES, **OF_TARGETS}
BY_SUBJECT = ("logistic",)
"""Those that choose a setting by leaving subjects of the train side out."""
DRAWS = ("minirocket",)
"""Those whose answer depends on the seed."""


def available(*, targets: bool) -> list[str]:
    """Baselines for classes, or for targets, that can run here."""
    found = importlib.util.find_spec("aeon") is not None
    return [name for name in (OF_TARGETS if targets else OF_CLASSES) if name != "minirocket" or found]


def baseline(name: str) -> Baseline:
    """The baseline of this name."""
    if name not in BASELINES:
        raise ConfigError(f"no baseline is called {name!r}; there are {', '.join(BASELINES)}")
    return BASELINES[name]


def chosen(asked: Sequence[str], *, targets: bool) -> tuple[str, ...]:
    """The baselines that a configuration asks for. Raises ``ConfigError`` for one that cannot be had."""
    if list(asked) in (["auto"], ["none"], []):
        return tuple(available(targets=targets)) if "auto" in asked else ()
    for name in asked:
        if name in ("auto", "none"):
            raise ConfigError(f"baselines: {name} stands alone, got {', '.join(asked)}")
        baseline(name)
        if (name in OF_TARGETS) != targets:
            raise ConfigError(f"baseline {name} is for {'classes' if targets else 'targets'}; the labels are not")
        if name not in available(targets=targets):
            raise ConfigError(f"baseline {name} needs aeon; pip install 'aar_dist[baselines]', or leave it out")
        if asked.count(name) > 1:
            raise ConfigError(f"baselines: {name} is named twice")
    return tuple(asked)


def _kernels(n_kernels: int, seed: int) -> Any:
    try:
        from aeon.transformations.collection.convolution_based import MiniRocket
    except ImportError as error:
        raise ConfigError(
            f"baseline minirocket needs aeon ({error}); pip install 'aar_dist[baselines]', or leave it out"
        ) from None
    return MiniRocket(n_kernels=n_kernels, random_state=seed)


def _series(windows: Windows, length: int) -> NDArray[np.float32]:
    """(n, C, length)."""
    values = windows.values[:, :length]
    padded = np.pad(values, ((0, 0), (0, length - values.shape[1]), (0, 0)))
    return np.ascontiguousarray(padded.transpose(0, 2, 1))
