"""How hard a linear model of a few subjects is held back: tried on subjects that were left out.

features (n, D), classes (n,), subjects (n,) -> the inverse penalty whose probabilities are best on subjects it did not
learn from
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)
"""Inverse penalties that are tried."""
PLAIN = 1.0
"""Where there is nobody to leave out."""
PARTS = 5
"""The subjects are left out in so many parts, or one by one if there are fewer."""


def logistic_model(strength: float, class_weight: str | None, seed: int, steps: int = 2000) -> Pipeline:
    """Logistic regression on standardised features."""
    model = LogisticRegression(C=strength, max_iter=steps, class_weight=class_weight, random_state=seed)
    return make_pipeline(StandardScaler(), model)


def chosen_strength(
    x: NDArray[np.float32], label: NDArray[np.int64], subject: NDArray[np.str_], class_weight: str | None, seed: int
) -> float:
    """The one with the least squared error of probabilities, summed over the parts; classes count alike if
    ``class_weight`` says so. The strongest of equals."""
    n_parts = min(PARTS, len(np.unique(subject)))
    if n_parts < 2:
        return PLAIN
    counts = np.bincount(label)
    weight = 1.0 / np.maximum(counts, 1)[label] if class_weight else np.ones(len(label))
    errors = np.zeros(len(STRENGTHS))
    for learned, asked in GroupKFold(n_parts).split(x, groups=subject):
        if len(np.unique(label[learned])) > 1:
            for i, strength in enumerate(STRENGTHS):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)  # it is only asked which is better
                    model = logistic_model(strength, class_weight, seed, steps=200).fit(x[learned], label[learned])
                said = np.zeros((len(asked), len(counts)))
                said[:, model.classes_] = model.predict_proba(x[asked])
                error = ((said - np.eye(len(counts))[label[asked]]) ** 2).sum(1)
                errors[i] += float((error * weight[asked]).sum())
    return STRENGTHS[int(errors.argmin())] if errors.any() else PLAIN
