"""What the audit found, kept beside the folds: recordings that did not change are not read again.

identity of the shard sets (the hashes of all shards are in it), subjects, way of looking -> key
audited_shards(...) -> Folds with their audit, Kept -> audit.json, which holds for this key alone
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aar_dist.base import storage
from aar_dist.evaluation.audit import VERSION, Namesakes, Shared, audited, find_shared
from aar_dist.evaluation.fingerprints import BLOCK, COPIES, FEW_VALUES, NEAR
from aar_dist.evaluation.tracks import tracks_of_shards
from aar_dist.evaluation.transductive import Seen, key_of, nothing_seen, pretrainings, seen_by
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.stream.source import Source
from aar_dist.training.finetuning.folds import Folds

FILE = "audit.json"


@dataclass(frozen=True)
class Kept:
    """The pairs of these recordings, whatever the folds are, and what the models to start from have seen of them."""

    key: str
    shared: tuple[Shared, ...]
    seen_key: str = ""
    seen: Seen | None = None

    def write(self, folder: Path) -> None:
        """Into a folder of folds."""
        told: dict[str, Any] = {"key": self.key, "shared": [s.as_json() for s in self.shared]}
        if self.seen:
            told["pretraining"] = {"key": self.seen_key, **self.seen.as_json()}
        storage.write_json(folder / FILE, told)


def audited_shards(
    source: Source, folds: Folds, folder: Path, *, allow_leaks: bool, namesakes: Namesakes = "ask"
) -> tuple[Folds, Kept]:
    """The folds with what stands twice in the recordings of their subjects. Samples are read if ``folder`` holds no
    audit of the very same recordings. Raises ``ConfigError`` of a leak, unless it is allowed."""
    subjects = {name for fold in folds.folds for name in fold.side_of()}
    key = _key(source.identity, subjects)
    told = _read(folder / FILE, key)
    tracks = [t for t in tracks_of_shards(source.folders, source.cache, started=told is None) if t.subject in subjects]
    if told is None:
        shared = find_shared(tracks)
    else:
        at = {(t.dataset, t.recording): t for t in tracks}
        shared = [Shared.from_json(of, at) for of in told]
    made = audited(folds, tracks, shared=shared, allow_leaks=allow_leaks, namesakes=namesakes)
    return made, Kept(key, tuple(shared))


def with_pretraining(
    kept: Kept, start: tuple[Sequence[Checkpoint], str | None], source: Source, subjects: Collection[str], folder: Path
) -> Kept:
    """The same with what the models to start from have seen of these subjects. Samples are read if ``folder`` does not
    tell.

    Args:
        start: The models, and the store that those they came from are looked up in.
    """
    models, store = start
    if not models:
        return replace(kept, seen=nothing_seen(subjects))
    told = [pretrainings(model, store) for model in models]
    made = list(dict.fromkeys(one for of, _ in told for one in of))
    remarks = list(dict.fromkeys(remark for _, of in told for remark in of))
    key = key_of(made, remarks, source.identity, subjects)
    seen = _read_seen(folder / FILE, key)
    if seen is None:
        seen = seen_by(made, remarks, subjects, tracks_of_shards(source.folders, source.cache, started=False))
    return replace(kept, seen_key=key, seen=seen)


def _read_seen(file: Path, key: str) -> Seen | None:
    try:
        told = json.loads(file.read_text())["pretraining"]
        return Seen.from_json(told) if told["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _key(identity: str, subjects: Collection[str]) -> str:
    about = [VERSION, BLOCK, NEAR, COPIES, FEW_VALUES, identity, sorted(subjects)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _read(file: Path, key: str) -> list[dict[str, Any]] | None:
    """What a file tells of this key; None where it is another's, damaged, or not there."""
    try:
        told = json.loads(file.read_text())
        pairs: list[dict[str, Any]] | None = told["shared"] if told["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pairs
