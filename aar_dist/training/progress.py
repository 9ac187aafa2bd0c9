"""All that survives a restart beside the engine."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from aar_dist.base.errors import CheckpointError
from aar_dist.stream.config import DataConfig
from aar_dist.stream.tape import TAPE_VERSION

# What does not change which segment stands where, nor what is in it.
FREE_DATA_KEYS = ("shards", "reader_threads", "prefetch_batches", "resident", "resident_limit", "cache", "cache_limit",
                  "downloads")  # fmt: skip
MOVING = ("position", "step", "skipped", "run_id", "phase", "phase_step", "phase_position", "phase_name")


@dataclass(frozen=True)
class Progress:
    """Where a run stands. The trainer advances it at optimizer steps; a few bytes, the same on every rank."""

    shards: str
    """Identity of the shard sets."""
    tape: dict[str, Any]
    """Version of the tape and the settings it follows from."""
    seed: int
    """Seed of the initial weights and of dropout."""
    position: int = 0
    """Segments of the tape that have been trained on."""
    step: int = 0
    """Optimizer steps taken."""
    skipped: int = 0
    """Steps of these whose gradients were not finite, and which changed nothing."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """Key -> value of all else that must stay as it was: what makes the model and its training what they are."""
    run_id: str = ""
    """The tracker's id of this run, the same through restarts."""
    phase: int = 0
    """Which of the run's phases the last step belongs to, from 0 (training/phases.py)."""
    phase_step: int = 0
    """Steps that had been taken when it began."""
    phase_position: int = 0
    """Position at which it began."""
    phase_name: str = ""
    """What it is called; empty in checkpoints of earlier versions."""

    @classmethod
    def start(cls, shards: str, data: DataConfig, seed: int, recipe: Mapping[str, Any] | None = None) -> "Progress":
        """A run at its beginning."""
        tape = {key: value for key, value in asdict(data).items() if key not in FREE_DATA_KEYS}
        return cls(shards=shards, tape={"version": TAPE_VERSION, **tape}, seed=seed, recipe=dict(recipe or {}))

    def advance(self, segments: int, *, applied: bool) -> "Progress":
        """One optimizer step further."""
        skipped = self.skipped + (not applied)
        return replace(self, position=self.position + segments, step=self.step + 1, skipped=skipped)

    def next_phase(self) -> "Progress":
        """The beginning of the next phase."""
        return replace(self, phase=self.phase + 1, phase_step=self.step, phase_position=self.position)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint's manifest."""
        return asdict(self)

    def state(self) -> dict[str, Any]:
        """What moves, and a hash of what must not: some 200 bytes beside the engine's own state, for any model, split
        and cluster. The manifest of the checkpoint says it in full."""
        return {name: getattr(self, name) for name in MOVING} | {"settings": self._settings()}

    def resumed(self, state: Mapping[str, Any]) -> "Progress":
        """This run where :meth:`state` was taken. Raises ``CheckpointError`` for the state of another run."""
        if state.get("settings", self._settings()) != self._settings():
            raise CheckpointError("the state that DeepSpeed saved is of another run than the manifest beside it")
        return replace(self, **{name: state[name] for name in MOVING if name in state})

    def _settings(self) -> str:
        text = json.dumps([self.shards, self.tape, self.seed, self.recipe], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "Progress":
        """Back from :meth:`to_dict`."""
        return cls(**saved)

    def check_continues(self, saved: "Progress", where: object) -> None:
        """Raise ``CheckpointError`` unless a run that starts as this one may go on from ``saved``."""
        pairs = {"train.seed": (saved.seed, self.seed), "data.shards": (saved.shards[:12], self.shards[:12])}
        for key in sorted({*saved.tape, *self.tape}):
            pairs[f"data.{key}"] = (saved.tape.get(key), self.tape.get(key))
        for key in [*self.recipe, *saved.recipe]:
            pairs[key] = (saved.recipe.get(key), self.recipe.get(key))
        for key, (old, new) in pairs.items():
            if _as_saved(old) != _as_saved(new):
                raise CheckpointError(
                    f"{where} was written with {key} {old}, now it is {new}. Resume with the same, "
                    "or start a new run in another --out (--init_from keeps the weights)"
                )


def _as_saved(value: Any) -> Any:
    """A value as it comes back from JSON, where a tuple is a list."""
    return json.loads(json.dumps(value))
