"""The parts of a run, one after the other, each of which trains parameters of its own.

phases, Progress -> which parameters move, and how fast -> the step at which the phase ends -> the next one

DeepSpeed hears of nothing that is frozen or set free after it was given the model: every phase has a new engine, made
from the fp32 weights that the phase before it has saved, with a fresh optimizer. All else goes on unbroken: the
position on the tape, the count of steps, what dropout is drawn from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from torch import Tensor

from aar_dist.base.errors import CheckpointError
from aar_dist.base.wording import many
from aar_dist.objectives.base import Objective
from aar_dist.training.config import LoopConfig
from aar_dist.training.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a run."""

    name: str
    """What moves, for people: ``head only``."""
    epochs: int
    """How often it sees the training set."""
    factors: Mapping[str, float] | None = None
    """Parameter -> factor of its learning rate; those that are not named keep their weights. None: as the objective is
    made, and 1."""

    def apply(self, objective: Objective) -> None:
        """Freeze and unfreeze the parameters of an objective that is not DeepSpeed's yet."""
        for name, parameter in objective.named_parameters():
            parameter.requires_grad_(self.moves(name, parameter))

    def n_moving(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """How many numbers it trains of parameters of these shapes."""
        return sum(prod(shape) for name, shape in shapes.items() if self.factors is None or name in self.factors)

    def kept(self, objective: Objective) -> dict[str, Tensor]:
        """Copies of the parameters that it leaves alone, on the CPU."""
        return {n: p.detach().cpu().clone() for n, p in objective.named_parameters() if not self.moves(n, p)}

    def moves(self, name: str, parameter: Tensor) -> bool:
        """True of a parameter that it trains."""
        return parameter.requires_grad if self.factors is None else name in self.factors

    @property
    def fastest(self) -> float:
        """The largest factor of the learning rate."""
        return max(self.factors.values()) if self.factors else 1.0


@dataclass(frozen=True)
class Course:
    """All phases of a run, and what their ends are reckoned from."""

    phases: tuple[Phase, ...]
    train: LoopConfig
    n_segments: int
    """Of one epoch."""
    val_every: int

    def check_continues(self, saved: Progress, where: object) -> None:
        """Raise ``CheckpointError`` unless the phase in which a checkpoint was written is one of these, in its place:
        in another one other parameters move."""
        names = [phase.name for phase in self.phases]
        if saved.phase >= len(names) or saved.phase_name not in ("", names[saved.phase]):
            told = f", {saved.phase_name}" if saved.phase_name else ""
            raise CheckpointError(
                f"{where} was written in phase {saved.phase + 1}{told}; now the phases are {', '.join(names)}. Resume "
                "with train.epochs and train.stop_after as they were, or start a new run in another --out"
            )

    def last(self, progress: Progress) -> bool:
        """True if no phase follows the one that the run is in."""
        return progress.phase + 1 == len(self.phases)

    def now(self, progress: Progress) -> Phase:
        """The phase that the run is in."""
        return self.phases[progress.phase]

    def until(self, progress: Progress) -> int:
        """Step at which this phase ends, seen from where the run stands. One that another follows ends with a
        validation, the nearest to its epochs."""
        position = progress.position - progress.phase_position
        left, batch = self.now(progress).epochs * self.n_segments - position, self.train.batch_size
        if self.last(progress):
            steps = progress.step + left // batch
        else:
            steps = self.val_every * round((progress.step * batch + left) / (batch * self.val_every))
        return self._capped(max(progress.phase_step + 1, steps))

    def total(self, progress: Progress) -> int:
        """Steps of the whole run, if no later phase ends early."""
        later = sum(phase.epochs for phase in self.phases[progress.phase + 1 :])
        return self._capped(self.until(progress) + later * self.n_segments // self.train.batch_size)

    def goes_on(self, progress: Progress) -> bool:
        """True if another phase follows one that has ended here."""
        limit = self.train.max_steps
        return not self.last(progress) and (limit is None or progress.step < limit)

    def _capped(self, steps: int) -> int:
        return min(steps, self.train.max_steps or steps)


def cut(phases: Sequence[Phase], epochs: int | None) -> tuple[Phase, ...]:
    """What so many epochs see of them, from the first on; None for all."""
    if epochs is None:
        return tuple(phases)
    made: list[Phase] = []
    for phase in phases:
        left = epochs - sum(one.epochs for one in made)
        if left > 0:
            made.append(replace(phase, epochs=min(phase.epochs, left)))
    return tuple(made)


def told(phases: Sequence[Phase], shapes: Mapping[str, Sequence[int]]) -> str:
    """What moves when, in words."""
    said = [f"{phase.name} ({phase.n_moving(shapes):,} parameters move)" for phase in phases]
    if len(phases) > 1:
        ends = [f" for {many(phase.epochs, 'epoch')}{_slower(phase)}" for phase in phases]
        said = [text + end for text, end in zip(said, ends, strict=True)]
    return ", then ".join(said)


def _slower(phase: Phase) -> str:
    return f" at {phase.fastest:g} of the learning rate" if phase.fastest != 1 else ""
