"""What a run is going to do, of whatever kind it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aar_dist.objectives.base import Objective
from aar_dist.stream.loader import SegmentStream
from aar_dist.training.config import RunConfig
from aar_dist.training.phases import Course, Phase


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is going to do; nothing of it has been done."""

    config: RunConfig
    text: str
    """The resolved configuration (YAML)."""
    objective: Objective
    phases: tuple[Phase, ...]
    """What is trained of it, one after the other; none trains less than the one before it."""
    train_stream: SegmentStream
    val_stream: SegmentStream | None
    val_every: int
    save_every: int
    recipe: Mapping[str, Any]
    """Key -> value of what may not change on the way, beside the data and the seed."""
    about: str
    """What the first line says of the data."""
    pictures: int = 0
    patience: int | None = None
    """Validations in a row without a better loss that end a phase; None: none do."""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.config.train.retention.check_reached(self.save_every)

    @property
    def course(self) -> Course:
        """When each phase ends."""
        return Course(self.phases, self.config.train, self.train_stream.n_segments, self.val_every)
