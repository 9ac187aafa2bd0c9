"""``aar-dist export npy``: the array folders of the first system, from the same segments that training is given.

aar-dist export npy shard_set arrays                            # X_train.npy, X_val.npy: one epoch of the tape
aar-dist export npy shard_set arrays --folds run/folds.json     # fold_k/{X_train,y_train,X_val,y_val}.npy

X is (n, max_window_length, channels) float32, y (n,) int64 (or float32 targets). What was not recorded is NaN: the rest
of a shorter segment, gaps, absent channels; what is longer is cut off. Of a fold, ``train`` holds the subjects of its
train and validation sides, ``val`` those of its test side. Written batch by batch, whole or not at all.
"""

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from aar_dist.base import storage
from aar_dist.base.cli import Parser
from aar_dist.base.errors import ConfigError
from aar_dist.base.progress import progress
from aar_dist.evaluation.arrays import batches_once
from aar_dist.stream.config import DataConfig, MixtureConfig, Normalize
from aar_dist.stream.loader import SegmentStream, has_split, open_stream
from aar_dist.stream.windows import WindowConfig, open_windows, window_stream
from aar_dist.training.finetuning.folds import Folds, Side, read_folds

BATCH = 256
SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")
SIDES: dict[str, tuple[Side, ...]] = {"train": ("train", "validation"), "val": ("test",)}


def export_pretraining(data: DataConfig, out: Path) -> dict[str, int]:
    """Write X_train.npy and, where there are validation subjects, X_val.npy; returns the segments of each."""
    made = {}
    with _folder(out) as folder:
        for split in SPLITS:
            if split == "train" or has_split(data, split):
                with open_stream(data, split) as stream:
                    made[f"X_{split}"] = _write(stream, data.max_window_length, folder / f"X_{split}.npy")
    return made


def export_folds(data: DataConfig, windows: WindowConfig, folds: Folds, out: Path) -> dict[str, int]:
    """Write the arrays of every fold; returns the windows of each."""
    source, table = open_windows(data, windows)
    folds.check_shards(source.identity)
    if folds.classes != table.classes:
        raise ConfigError(
            f"the folds were made for the classes {list(folds.classes or ())}, the windows carry "
            f"{list(table.classes or ())}; give windows of the same length and share, or make new folds"
        )
    made = {}
    with _folder(out) as folder:
        if folds.classes is not None:
            (folder / "classes.json").write_text(json.dumps(list(folds.classes)) + "\n")
        for number in range(len(folds)):
            (folder / f"fold_{number}").mkdir()
            for name, sides in SIDES.items():
                part = folds.select(table, number, *sides)
                if not len(part):
                    raise ConfigError(f"fold {number} has no window of {data.segment_duration:g} s on its {name} side")
                np.save(folder / f"fold_{number}" / f"y_{name}.npy", part.label)
                with window_stream(source, part, data, shuffle=False) as stream:
                    path = folder / f"fold_{number}" / f"X_{name}.npy"
                    made[f"fold_{number}/X_{name}"] = _write(stream, data.max_window_length, path)
    return made


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder that appears under its name when all of it is written."""
    if out.exists():
        raise ConfigError(f"{out}: exists; remove it, or give another folder")
    staging = storage.staging_name(out)
    with storage.one_line_errors(out, staging):
        staging.mkdir(parents=True)
        yield staging
        storage.publish(staging, out)


def _write(stream: SegmentStream, length: int, path: Path) -> int:
    """The segments of a stream, in order, into a memory-mapped .npy; returns how many."""
    shape = (stream.n_segments, length, stream.source.n_columns)
    x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)  # type: ignore[no-untyped-call]
    done = 0
    with progress(f"writing {path.name}", stream.n_segments) as advance:
        for batch in batches_once(stream, BATCH):
            values, valid = batch.values.numpy(), batch.valid.numpy()
            rows = x[done : done + len(batch)]
            rows[:, values.shape[1] :] = np.nan
            rows[:, : values.shape[1]] = np.where(valid, values, np.nan)
            done += len(batch)
            advance(len(batch))
    x.flush()
    return done


def main(argv: Sequence[str]) -> None:
    """Export arrays."""
    args = _parser().parse_args(argv)
    data = _data(args)
    if args.folds:
        folds = read_folds(args.folds)
        classes = list(folds.classes) if folds.classes is not None else None
        names = {key: folds.labels[key] for key in ("map", "unlisted") if key in folds.labels}
        windows = WindowConfig(hop_s=args.hop_s, min_share=args.min_share, classes=classes, **names)
        made = export_folds(data, windows, folds, args.out)
    else:
        made = export_pretraining(data, args.out)
    for name, n in made.items():
        print(f"{args.out}/{name}.npy: {n} segments")


def _parser() -> Parser:
    data, mixture = DataConfig(), MixtureConfig()
    parser = Parser(__doc__, prog="aar-dist export npy")
    parser.add_argument("shards", nargs="+", help="shard sets")
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--folds", type=Path, help="a folds.json: labelled windows of each fold, for fine-tuning")
    parser.add_argument("--segment_duration", type=float, default=data.segment_duration, help="[s] (%(default)s)")
    parser.add_argument("--max_window_length", type=int, default=data.max_window_length, help="(%(default)s)")
    parser.add_argument("--oversampling_factor", type=float, default=mixture.oversampling_factor, help="(%(default)s)")
    parser.add_argument("--max_dataset_imbalance", type=float, default=mixture.max_dataset_imbalance,
                        help="(%(default)s)")  # fmt: skip
    parser.add_argument("--random_seed", type=int, default=data.random_seed, help="of the segments (%(default)s)")
    parser.add_argument("--kinds", nargs="*", default=data.kinds, help="kinds of sensor, one at a time (%(default)s)")
    parser.add_argument("--sensors", nargs="+", help="sensors drawn together, by name; or all")
    parser.add_argument("--normalize", choices=get_args(Normalize), default=data.normalize)
    parser.add_argument("--hop_s", type=float, help="--folds: from one window to the next [s] (default: their length)")
    parser.add_argument("--min_share", type=float, default=1.0, help="--folds: share that a label covers (%(default)s)")
    return parser


def _data(args: Namespace) -> DataConfig:
    sensors = args.sensors or "each"
    return DataConfig(
        shards=args.shards,
        sensors="all" if sensors == ["all"] else sensors,
        kinds=args.kinds,
        segment_duration=args.segment_duration,
        max_window_length=args.max_window_length,
        mixture=MixtureConfig(
            oversampling_factor=args.oversampling_factor, max_dataset_imbalance=args.max_dataset_imbalance
        ),
        normalize=args.normalize,
        random_seed=args.random_seed,
    )
