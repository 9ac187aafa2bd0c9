"""Which of the subjects that are tested the model to start from has seen before, without their labels.

    stored model -> the models it came from -> their shard sets, where they can be read -> Seen: of each subject yes, no
    or unknown, and what tells it

That is no leak, since pretraining knows no labels; but a score over such subjects is not one of animals that are new
(transductive), and says so. Recordings are compared by their samples and subjects by their names; where a shard set of
the pretraining is out of reach, names alone are left, and what they do not tell is unknown.

A model on the way that was fine-tuned has learned labels, which is a leak: of whom is told by samples and whole names.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from aar_dist.base.errors import AarError
from aar_dist.base.remote import is_url
from aar_dist.base.wording import some
from aar_dist.evaluation.audit import NAME, VERSION, Place, Shared, family_of, find_shared
from aar_dist.evaluation.tracks import Track, tracks_of_shards
from aar_dist.shards.format import read_info, read_manifest
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.store.registry import resolve

How = Literal["random weights", "samples", "names"]
LARGEST = 500_000_000
"""Samples of a pretraining beyond which its recordings are compared by name alone."""
THEIRS = "\0"
"""Behind the name of a recording of a pretraining, while it is compared: another subject of ours may bear the same."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What pretraining had of each subject. Plain values."""

    of: dict[str, bool | None]
    """Subject -> whether a recording of it was trained on; None where that is not known."""
    compared: How
    models: tuple[str, ...] = ()
    """The model to start from, and those that it came from."""
    pairs: tuple[dict[str, Any], ...] = ()
    """What a recording of ours and one of the pretraining have in common, as the audit tells it, and in words
    (``said``)."""
    remarks: tuple[str, ...] = ()
    """What could not be compared, and why."""
    taught: dict[str, str] = field(default_factory=dict)
    """Subject -> the model that has learned its labels."""

    @property
    def transductive(self) -> list[str]:
        """The subjects that were seen."""
        return sorted(name for name, seen in self.of.items() if seen)

    @property
    def unknown(self) -> list[str]:
        """Those of which nothing is known."""
        return sorted(name for name, seen in self.of.items() if seen is None)

    def lines(self) -> list[str]:
        """In words."""
        n, names = len(self.of), f", {some(self.transductive)}" if self.transductive else ""
        what = "signals" if self.taught else "signals, never labels,"
        said = [f"transductive: pretraining saw {what} of {len(self.transductive)} of {n} subjects{names}"]
        said += [f"labels, too, of {some(sorted(self.taught))}"] if self.taught else []
        said += [f"whether pretraining saw {some(self.unknown)} is not known"] if self.unknown else []
        return [*self.remarks, *said]

    def as_json(self) -> dict[str, Any]:
        """For results.json."""
        return {"transductive": self.transductive, "unknown": self.unknown, **asdict(self)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Seen":
        """Back from :meth:`as_json`."""
        lists = {name: tuple(told[name]) for name in ("models", "pairs", "remarks")}
        return cls(of=told["of"], compared=told["compared"], taught=told["taught"], **lists)


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """What one model was trained on."""

    model: str
    subjects: frozenset[str] | None
    """None where they are not told."""
    datasets: frozenset[str]
    folders: tuple[str, ...]
    """Its shard sets, as far as they can be read."""
    identity: str
    remark: str
    """Why they cannot."""
    labels: bool = False
    """Whether it learned their labels."""

    def tracks(self) -> list[Track]:
        """Its recordings."""
        return [t for t in tracks_of_shards([Path(f) for f in self.folders]) if t.subject in (self.subjects or ())]

    def answer(self, name: str, *, by_name: bool) -> bool | None:
        """Whether its names tell of a subject; ``by_name`` alone, a namesake in a data set of the family is one."""
        if name in (self.subjects or ()):
            return True
        if not by_name:
            return False
        dataset, _, who = name.partition("/")
        if self.subjects is None:
            related = {family_of(other) for other in self.datasets}
            return None if family_of(dataset) in related or not related else False
        others = (subject.partition("/") for subject in self.subjects)
        return any(family_of(other) == family_of(dataset) and its == who for other, _, its in others)


def pretrainings(checkpoint: Checkpoint, store: str | None = None) -> tuple[list[Pretraining], list[str]]:
    """What a model and those that it came from were trained on, and a remark if one of these cannot be had.

    Args:
        store: Where models that it came from are looked up.
    """
    models, remarks = [checkpoint], []
    while (start := models[-1].config().get("init_from")) and not models[-1].config().get("from_scratch"):
        try:
            models.append(resolve(start, store))
        except AarError:
            remarks.append(f"{models[-1].reference} started from {start}, which cannot be read")
            break
    return [_taught(model) for model in models], remarks


def key_of(made: Sequence[Pretraining], remarks: Sequence[str], identity: str, subjects: Collection[str]) -> str:
    """Of all that the answer depends on."""
    models = [[one.model, one.identity, one.remark, sorted(one.subjects or ())] for one in made]
    return hashlib.sha256(
        json.dumps([VERSION, LARGEST, models, [*remarks], identity, sorted(subjects)]).encode()
    ).hexdigest()


def seen_by(
    made: Sequence[Pretraining], remarks: Sequence[str], subjects: Collection[str], tracks: Sequence[Track]
) -> Seen:
    """What :func:`pretrainings` had of these subjects, whose recordings are ``tracks``."""
    answers: list[dict[str, bool | None]] = []
    pairs: dict[tuple[Place, Place], Shared] = {}
    taught: dict[str, str] = {}
    told = list(remarks)
    for one in made:
        theirs = one.tracks()
        remark = one.remark or ("too many samples" if sum(t.n for t in theirs) > LARGEST else "")
        found = [] if remark else _between([t for t in tracks if t.subject in subjects], theirs)
        met = {name for pair in found for name in (pair.first.subject, pair.second.subject)}
        answers.append({name: name in met or one.answer(name, by_name=bool(remark)) for name in subjects})
        pairs |= {pair.places: pair for pair in found}
        if one.labels:
            sure = {name for pair in found if pair.what != NAME for name in pair.subjects} | (
                one.subjects or frozenset()
            )
            taught |= {name: one.model for name in subjects if name in sure and name not in taught}
        told += [f"{one.model}: {remark}; names were compared"] if remark else []
    return Seen(
        of={name: _any([answer[name] for answer in answers], more=bool(remarks)) for name in sorted(subjects)},
        compared="names" if told else "samples",
        models=tuple(one.model for one in made),
        pairs=tuple({"said": str(pairs[places]), **pairs[places].as_json()} for places in sorted(pairs)),
        remarks=tuple(told),
        taught=dict(sorted(taught.items())),
    )


def of_shards(folder: str) -> Pretraining:
    """A pretraining on the train split of a shard set."""
    identity = read_info(Path(folder))["identity"]
    subjects = frozenset(_trained([folder]))
    datasets = frozenset(name.partition("/")[0] for name in subjects)
    return Pretraining(
        model=folder, subjects=subjects, datasets=datasets, folders=(folder,), identity=identity, remark=""
    )


def nothing_seen(subjects: Collection[str]) -> Seen:
    """By random weights."""
    return Seen(of=dict.fromkeys(sorted(subjects), False), compared="random weights")


def _any(answers: Sequence[bool | None], *, more: bool) -> bool | None:
    """Yes if one says so; unknown if one does not know, or if there are ``more`` that were not asked."""
    if any(answers):
        return True
    return None if more or None in answers else False


def _between(ours: Sequence[Track], theirs: Sequence[Track]) -> list[Shared]:
    """What recordings of ours and of the pretraining share. Of one that stands in both under one name, the name is
    enough."""
    mine = {(t.dataset, t.recording): t.subject for t in ours}
    others = [t for t in theirs if mine.get((t.dataset, t.recording)) != t.subject]
    found = find_shared([*ours, *(replace(t, recording=t.recording + THEIRS) for t in others)]) if others else []
    return [
        replace(pair, first=_named(pair.first), second=_named(pair.second))
        for pair in found
        if sum(name.endswith(THEIRS) for _, name in pair.places) == 1
    ]


def _named(track: Track) -> Track:
    return replace(track, recording=track.recording.removesuffix(THEIRS))


def _taught(model: Checkpoint) -> Pretraining:
    identity = model.manifest.get("shards", "")
    names = model.taught or model.manifest.get("subjects")
    folders = [str(name) for name in model.config().get("data", {}).get("shards", ())]
    problem = _out_of_reach(folders, identity)
    if names is None and not problem:
        names = _trained(folders)
    return Pretraining(
        model=model.reference,
        subjects=None if names is None else frozenset(names),
        datasets=frozenset(model.manifest.get("datasets", ())),
        folders=() if problem else tuple(folders),
        identity=identity,
        remark=problem,
        labels=bool(model.taught),
    )


def _out_of_reach(folders: Sequence[str], identity: str) -> str:
    """Why the shard sets of a model are not read; empty if they are there and the same."""
    for folder in folders:
        if is_url(folder):
            return f"its shard set {folder} would have to be downloaded"
    try:
        found = "+".join(read_info(Path(folder))["identity"] for folder in folders)
    except AarError:
        return f"its shard set {', '.join(folders)} is not here"
    return "" if folders and found == identity else "its shard set is not the one it was trained on"


def _trained(folders: Sequence[str]) -> Iterator[str]:
    """The subjects of the train split of shard sets."""
    for folder in folders:
        rows = read_manifest(Path(folder), read_info(Path(folder)), ["dataset", "subject", "split"])
        for row in rows.group_by(rows.column_names).aggregate([]).to_pylist():
            if row["split"] == "train":
                yield f"{row['dataset']}/{row['subject']}"
