"""All that survives a restart beside the engine."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from aar_dist.base.errors import CheckpointError
from aar_dist.stream.config import DataConfig
from aar_dist.stream.tape import TAPE_VERSION

# What does not change which segment stands where, nor what is in it.
FREE_DATA_KEYS = ("shards", "reader_threads", "prefetch_batches", "cache", "cache_limit", "downloads")


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

    @classmethod
    def start(cls, shards: str, data: DataConfig, seed: int, recipe: Mapping[str, Any] | None = None) -> "Progress":
        """A run at its beginning."""
        tape = {key: value for key, value in asdict(data).items() if key not in FREE_DATA_KEYS}
        return cls(shards=shards, tape={"version": TAPE_VERSION, **tape}, seed=seed, recipe=dict(recipe or {}))

    def advance(self, segments: int, *, applied: bool) -> "Progress":
        """One optimizer step further."""
        skipped = self.skipped + (not applied)
        return replace(self, position=self.position + segments, step=self.step + 1, skipped=skipped)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)

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
