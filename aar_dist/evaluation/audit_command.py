"""``aar-dist audit``: what is in a shard set, or a folder of recordings, twice; with folds, whether it leaks.

aar-dist audit shard_set                            # every pair of recordings that share samples or time
aar-dist audit data/herd data/herd_2024             # folders of HDF5 recordings, together
aar-dist audit shard_set --folds run/folds.json     # an error (exit 2) if a pair stands on two sides
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from aar_dist.base.cli import Parser
from aar_dist.base.errors import user_entry
from aar_dist.base.remote import is_url
from aar_dist.evaluation.audit import audited, find_shared
from aar_dist.evaluation.tracks import Track, tracks_of_recordings, tracks_of_shards
from aar_dist.recordings.contract import find_recordings
from aar_dist.shards.format import INFO, MANIFEST
from aar_dist.training.finetuning.folds import read_folds

BLIND = (
    "note: packed sensors are compared within a data set of one shard set only; to compare data sets, name the folders "
    "of their HDF5 recordings instead"
)


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Print every pair."""
    parser = Parser(__doc__, prog="aar-dist audit")
    parser.add_argument("paths", nargs="+", help="shard sets (folders, URLs), or folders of HDF5 recordings")
    parser.add_argument("--folds", type=Path, help="a folds.json: is anything on two sides of one of its folds?")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    args = parser.parse_args(argv)
    tracks = [track for path in args.paths for track in _tracks(path)]
    shared = find_shared(tracks)
    if args.folds:
        audited(read_folds(args.folds), tracks, shared=shared)
    if any(t.packed for t in tracks) and (len(args.paths) > 1 or len({t.dataset for t in tracks}) > 1):
        print(BLIND, file=sys.stderr)
    if args.json:
        print(json.dumps([s.as_json() for s in shared], indent=1))
        return
    for s in shared:
        print(s)
    recordings = len({(t.dataset, t.recording) for t in tracks})
    print(f"{recordings} recordings, {len(shared)} pairs share samples or time" + ("; no leak" if args.folds else ""))


def _tracks(path: str) -> list[Track]:
    if is_url(path):
        return tracks_of_shards([path])
    if any((Path(path) / name).exists() for name in (MANIFEST, INFO)):
        return tracks_of_shards([Path(path)])
    return tracks_of_recordings(find_recordings(Path(path)))
