"""What the ranks must agree on when each has read its configuration and opened its shards. Pure but for the token.

configuration, shard set, run directory -> Terms of each rank -> rank 0 -> complaints
"""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from aar_dist.base.storage import STAGING_MARK, one_line_errors
from aar_dist.training.meeting.compare import changed_keys
from aar_dist.training.meeting.machine import OF_THIS_MACHINE, file_system

LOCAL = ("out", "data.shards", "data.cache", "data.cache_limit", "data.statistics", "store.path", "init_from")
"""Keys that may differ between hosts: places, whose content is compared instead, and what follows from it."""
SEEN_WITHIN_S = 65.0
"""A client of NFS may believe for a minute that a new file is not there; a disk of this machine knows."""
CLOCKS_APART_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Of one rank."""

    who: str
    config: str
    """Hash of the configuration, without the keys that may differ."""
    shards: tuple[str, ...]
    """Identities of the shard sets that it reads."""
    places: tuple[str, ...]
    """Where it reads them."""
    out: str
    """Its run directory."""
    clock_s: float
    """How far its clock is ahead of rank 0's [s]."""

    def to_json(self) -> str:
        """For the store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Terms":
        """What another rank put there."""
        said = json.loads(text)
        return cls(**{**said, "shards": tuple(said["shards"]), "places": tuple(said["places"])})


def config_hash(text: str) -> str:
    """Hash of a resolved configuration (YAML) without what may differ."""
    shared = changed_keys(yaml.safe_load(text), {}, free=LOCAL)
    return hashlib.sha256(json.dumps(shared, sort_keys=True, default=str).encode()).hexdigest()


def disagreements(terms: Sequence[Terms], text_of: Callable[[str], str]) -> Iterator[str]:
    """What forbids to go on; rank 0 is the measure. ``text_of`` gives the configuration of a hash."""
    first = terms[0]
    for each in terms[1:]:
        if each.shards != first.shards:
            yield (
                f"{each.who} reads other shards than {first.who}: {_shards(each)}, there {_shards(first)}; give every "
                "host the same shard set"
            )
        elif each.config != first.config:
            yield (
                f"{each.who} has another configuration than {first.who}: {_keys(each, first, text_of)}; give every "
                "host the same file and flags"
            )


def strangers(terms: Sequence[Terms], seen: Sequence[bool]) -> Iterator[str]:
    """Complaints of the ranks that did not see the token of rank 0."""
    for each, saw in zip(terms, seen, strict=True):
        if not saw:
            yield (
                f"{each.who}: {each.out} is not the run directory of {terms[0].who} ({terms[0].out}); "
                "out must be a folder that all hosts share (NFS or alike)"
            )


def clock_warnings(terms: Sequence[Terms]) -> Iterator[str]:
    """A word on the clock that is furthest off."""
    worst = max(terms, key=lambda each: abs(each.clock_s))
    if abs(worst.clock_s) > CLOCKS_APART_S:
        side = "ahead of" if worst.clock_s > 0 else "behind"
        yield (
            f"the clock of {worst.who} is {abs(worst.clock_s):.0f} s {side} that of {terms[0].who}: logs and W&B will "
            "not fit together; let both follow a time server (chrony)"
        )


def _shards(terms: Terms) -> str:
    return f"{', '.join(each[:12] for each in terms.shards)} in {', '.join(terms.places)}"


def _keys(mine: Terms, first: Terms, text_of: Callable[[str], str]) -> str:
    changed = changed_keys(
        yaml.safe_load(text_of(mine.config)), yaml.safe_load(text_of(first.config)), free=LOCAL
    ).items()
    shown = [f"{key} {here!r} instead of {there!r}" for key, (here, there) in changed]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return ", ".join(shown[:3]) + more


@contextmanager
def token(folder: Path) -> Iterator[str]:
    """A file in the run directory, named so that a dead one is swept up, while the others look for it (rank 0). Folders
    that were made for it go with it if it ends in an error."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    name = f"meeting{STAGING_MARK}{secrets.token_hex(8)}"
    with one_line_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    try:
        yield name
    except BaseException:
        (folder / name).unlink(missing_ok=True)
        for each in made:
            if not any(each.iterdir()):
                each.rmdir()
        raise
    (folder / name).unlink(missing_ok=True)


def sees(folder: Path, name: str) -> bool:
    """True if the token is in this rank's folder, soon."""
    deadline = time.monotonic() + (1.0 if file_system(folder) in OF_THIS_MACHINE else SEEN_WITHIN_S)
    while not (folder / name).exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
