"""The command line of shards/build.py."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from aar_dist.base.cli import Parser, size_in_bytes
from aar_dist.base.errors import ConfigError, RecordingError, user_entry
from aar_dist.base.remote import as_location
from aar_dist.base.storage import is_staging
from aar_dist.recordings.units import Kind
from aar_dist.shards.build import BuildOptions, build
from aar_dist.shards.packing import Format
from aar_dist.shards.summary import render, summarize

# Flags of the first system's data preparation that decide what is drawn, not what is stored.
AT_TRAINING = {
    "oversampling_factor": "data.mixture.oversampling_factor",
    "max_dataset_imbalance": "data.mixture.max_dataset_imbalance",
    "segment_duration": "data.segment_duration",
    "max_window_length": "data.max_window_length",
}


class _AtTraining(argparse.Action):
    def __call__(self, parser: object, namespace: object, values: object, option: str | None = None) -> None:
        name = (option or "").lstrip("-")
        raise ConfigError(
            f"--{name}: shards hold every recording once; give it at training instead: --{AT_TRAINING[name]} {values}"
        )


def parser() -> Parser:
    """The flags, with the first system's names and defaults."""
    p = Parser("Build balanced WebDataset shards from HDF5 recordings, once.", prog="shards/build.py")
    defaults = BuildOptions(datasets=())
    p.add_argument(
        "--data_root", type=Path, required=True, help="folder with one folder of .hdf5 recordings a data set"
    )
    p.add_argument("--datasets", nargs="+", help="names of those folders (default: all)")
    p.add_argument(
        "--output_folder", type=as_location, required=True, help="the shard set to make: a folder, or s3://…, gs://…"
    )
    p.add_argument(
        "--train_ratio", type=float, default=defaults.train_ratio, help="share of subjects that train (%(default)s)"
    )
    p.add_argument(
        "--random_seed", type=int, default=defaults.random_seed, help="seed of the split and the order (%(default)s)"
    )
    p.add_argument(
        "--longest_segment_s",
        type=float,
        default=defaults.longest_segment_s,
        help="longest segment to serve [s] (%(default)s)",
    )
    p.add_argument("--shard_size", type=size_in_bytes, default=defaults.shard_bytes, help="bytes a shard (64MB)")
    for kind in ("acc", "gyr", "mag", "ecg", "ppg"):
        p.add_argument(f"--{kind}_units", help=f"unit of {kind} sensors in files that do not say")
    p.add_argument(
        "--pack",
        nargs="+",
        default=[],
        metavar="[KIND=]FORMAT",
        help="keep sensors of more bits as int16 or float16: all kinds, or acc=int16 ppg=float16 … (default: none)",
    )
    p.add_argument(
        "--max_pack_error",
        type=float,
        default=defaults.max_pack_error,
        help="most that packing may move a value, as a share of its axis's standard deviation (%(default)s)",
    )
    p.add_argument("--skip_bad", action="store_true", help="go on without recordings that cannot be used")
    p.add_argument("--workers", type=int, help="shards written at a time (default: all cores)")
    p.add_argument("--ray_address", help="a Ray cluster, e.g. auto or 10.0.0.1:6379 (default: this machine)")
    for name in AT_TRAINING:
        p.add_argument(f"--{name}", action=_AtTraining, help=argparse.SUPPRESS)
    return p


def formats_of(told: Sequence[str]) -> dict[str, Format]:
    """``--pack``: kind of sensor -> format; a format alone is for every kind."""
    kinds, formats = get_args(Kind), {str(f): f for f in get_args(Format)}
    chosen: dict[str, Format] = {}
    for text in told:
        kind, _, name = text.rpartition("=")
        if name not in formats or (kind and kind not in kinds):
            raise ConfigError(
                f"--pack {text}: expected int16 or float16, alone or as <kind>=<format>; kinds are {', '.join(kinds)}"
            )
        chosen |= dict.fromkeys([kind] if kind else kinds, formats[name])
    return chosen


def folders_of(data_root: Path) -> list[str]:
    """The folders below the root that hold recordings."""
    if not data_root.is_dir():
        raise RecordingError(
            f"{data_root}: no such folder; --data_root holds one folder of .hdf5 recordings a data set"
        )
    folders = {p.parent for suffix in ("hdf5", "h5") for p in data_root.glob(f"*/*.{suffix}")}
    found = sorted(folder.name for folder in folders if not is_staging(folder))
    if not found:
        raise RecordingError(
            f"{data_root}: no folder with .hdf5 recordings; convert the data first (aar-dist convert --list)"
        )
    return found


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Build a shard set and print what it holds."""
    args = parser().parse_args(argv)
    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {args.workers}")
    units = {kind: unit for kind in ("acc", "gyr", "mag", "ecg", "ppg") if (unit := getattr(args, f"{kind}_units"))}
    options = BuildOptions(
        datasets=tuple(args.datasets or folders_of(args.data_root)),
        train_ratio=args.train_ratio,
        random_seed=args.random_seed,
        longest_segment_s=args.longest_segment_s,
        shard_bytes=args.shard_size,
        units=units,
        pack=formats_of(args.pack),
        max_pack_error=args.max_pack_error,
    )
    result = build(
        args.data_root,
        args.output_folder,
        options,
        workers=args.workers,
        ray_address=args.ray_address,
        skip_bad=args.skip_bad,
    )
    print(render(summarize(result.folder)), end="")
