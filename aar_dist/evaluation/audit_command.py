"""``aar-dist audit``: what is in a shard set, or a folder of recordings, twice; with folds, whether it leaks.

aar-dist audit shard_set                            # every pair of recordings that share samples, time or a name
aar-dist audit data/herd data/herd_2024             # folders of HDF5 recordings, together
aar-dist audit shard_set --folds run/folds.json     # an error (exit 2) if a pair stands on two sides
aar-dist audit shard_set --pretraining store://aar@3 --store store     # which subjects has this model seen?
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from aar_dist.base.cli import Parser
from aar_dist.base.errors import user_entry
from aar_dist.base.remote import is_url
from aar_dist.evaluation.audit import Namesakes, audited, find_shared
from aar_dist.evaluation.tracks import Track, tracks_of_recordings, tracks_of_shards
from aar_dist.evaluation.transductive import Seen, of_shards, pretrainings, seen_by
from aar_dist.recordings.contract import find_recordings
from aar_dist.shards.format import INFO, MANIFEST
from aar_dist.store.registry import resolve
from aar_dist.training.finetuning.folds import read_folds


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Print every pair."""
    args = _parser().parse_args(argv)
    tracks = [track for path in args.paths for track in _tracks(path)]
    shared = find_shared(tracks)
    if args.folds:
        audited(read_folds(args.folds), tracks, shared=shared, namesakes=args.namesakes)
    seen = _seen(args, tracks) if args.pretraining else None
    if args.json:
        pairs = [s.as_json() for s in shared]
        print(json.dumps(pairs if seen is None else {"shared": pairs, "pretraining": seen.as_json()}, indent=1))
        return
    for s in shared:
        print(s)
    recordings = len({(t.dataset, t.recording) for t in tracks})
    end = "; no leak" if args.folds else ""
    print(f"{recordings} recordings, {len(shared)} pairs share samples, time or a name{end}")
    if seen:
        print("\n".join([*(f"in pretraining: {pair['said']}" for pair in seen.pairs), *seen.lines()]))


def _parser() -> Parser:
    parser = Parser(__doc__, prog="aar-dist audit")
    parser.add_argument("paths", nargs="+", help="shard sets (folders, URLs), or folders of HDF5 recordings")
    parser.add_argument("--folds", type=Path, help="a folds.json: is anything on two sides of one of its folds?")
    differ = "--folds: differ, if one name in two data sets of a family is two individuals (%(default)s)"
    parser.add_argument("--namesakes", choices=get_args(Namesakes), default="ask", help=differ)
    parser.add_argument("--pretraining", help="a stored model, or the shard set it was trained on: whom has it seen?")
    parser.add_argument("--store", help="root of the store that store:// speaks of")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    return parser


def _seen(args: Namespace, tracks: Sequence[Track]) -> Seen:
    """Of the subjects that a fold tests, or of all there are."""
    subjects = {t.subject for t in tracks}
    if args.folds:
        subjects = {name for fold in read_folds(args.folds).folds for name in fold.test}
    if _is_shard_set(args.pretraining):
        return seen_by([of_shards(args.pretraining)], [], subjects, tracks)
    return seen_by(*pretrainings(resolve(args.pretraining, args.store), args.store), subjects, tracks)


def _tracks(path: str) -> list[Track]:
    if is_url(path):
        return tracks_of_shards([path])
    if _is_shard_set(path):
        return tracks_of_shards([Path(path)])
    return tracks_of_recordings(find_recordings(Path(path)))


def _is_shard_set(path: str) -> bool:
    return any((Path(path) / name).exists() for name in (MANIFEST, INFO))
