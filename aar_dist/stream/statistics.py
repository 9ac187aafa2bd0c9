"""Mean and deviation of each axis by name, so that a model can keep those it was trained with.

    rows of a manifest, their measured mean and deviation (r, A) + what is told -> both for each row, and all by name

What is told holds; an axis that is not told of keeps what was measured.
"""

from collections.abc import Sequence

import numpy as np

from aar_dist.stream.columns import Codes, Floats
from aar_dist.stream.config import Statistics


def settled(
    columns: Sequence[tuple[Codes, Sequence[str]]], mean: Floats, std: Floats, told: Statistics | None
) -> tuple[Floats, Floats, Statistics]:
    """(mean, std), each (r, A), with what is told in place of what was measured; and all of it by name.

    Args:
        columns: Codes (r,) and names of the rows' data set, sensor and axes, these joined by commas.
        mean: (r, A) measured, alike in the rows of one data set and sensor.
        std: (r, A).
        told: What a model was trained with.
    """
    made: Statistics = {d: {s: dict(axes) for s, axes in of.items()} for d, of in (told or {}).items()}
    mean, std = mean.copy(), std.copy()
    (dataset, datasets), (sensor, sensors), (axes, layouts) = columns
    group = (dataset.astype(np.int64) * len(sensors) + sensor) * len(layouts) + axes
    _, first, of = np.unique(group, return_index=True, return_inverse=True)
    for number, row in enumerate(first.tolist()):
        known = made.setdefault(datasets[dataset[row]], {}).setdefault(sensors[sensor[row]], {})
        here = of.reshape(-1) == number
        for k, axis in enumerate(layouts[axes[row]].split(",")):
            mean[here, k], std[here, k] = known.setdefault(axis, [float(mean[row, k]), float(std[row, k])])
    return mean, std, made
