"""With ``normalize: dataset``: whose mean and deviation a new recording is given.

statistics of training + recording -> data set -> its sensor, or its only one of that kind -> (mean, deviation) per axis
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import ConfigError, RecordingError
from aar_dist.recordings.contract import Recording, Sensor
from aar_dist.recordings.units import kind_of
from aar_dist.stream.config import Statistics

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TrainedStatistics:
    """What a model was trained with."""

    told: Statistics
    taught_by: tuple[str, ...]
    """Data sets that it was fine-tuned on."""
    asked: str | None = None
    """The data set whose statistics every recording is given; None for its own, or the only one."""

    def __post_init__(self) -> None:
        if self.asked is not None and self.asked not in self.told:
            raise ConfigError(f"--statistics_of {self.asked}: the model knows those of {', '.join(sorted(self.told))}")

    def dataset_of(self, recording: Recording) -> str:
        """Whose statistics a recording is given. Raises ``RecordingError`` where the model knows several others."""
        if self.asked is not None:
            return self.asked
        if recording.dataset in self.told:
            return recording.dataset
        known = self.taught_by if len(self.taught_by) == 1 else tuple(sorted(self.told))
        if len(known) > 1:
            raise RecordingError(
                f"{recording.path}: the model was trained with the statistics of {', '.join(known)}, none of them "
                f"{recording.dataset}; choose with --statistics_of"
            )
        return known[0]

    def of(self, recording: Recording, sensor: Sensor) -> tuple[Floats, Floats]:
        """(mean, deviation) of each axis (A,), in the unit of the kind.

        Raises:
            RecordingError: the data set has no such sensor or axis.
        """
        dataset = self.dataset_of(recording)
        sensors = self.told[dataset]
        alike = [name for name in sensors if kind_of(name) == sensor.kind]
        name = sensor.name if sensor.name in sensors or len(alike) != 1 else alike[0]
        axes = {axis.casefold(): pair for axis, pair in sensors.get(name, {}).items()}
        lacking = [axis for axis in sensor.axes if axis.casefold() not in axes]
        if lacking:
            raise RecordingError(
                f"{recording.path}: the model has no statistics of {sensor.name}.{lacking[0]} from {dataset}; it has "
                f"{', '.join(f'{s}.{a}' for s, of in sensors.items() for a in of)}; choose with --statistics_of"
            )
        pairs = np.array([axes[axis.casefold()] for axis in sensor.axes])
        return pairs[:, 0], pairs[:, 1]
