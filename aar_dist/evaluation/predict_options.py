"""What ``aar-dist predict`` may be told.

flags -> PredictOptions, checked
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch

from aar_dist.base.cli import Parser
from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.ethogram_files import FORMATS
from aar_dist.evaluation.predict_windows import BATCH

MOST_OVERLAP = 0.99
KINDS = ("acc", "gyr", "mag", "ecg", "ppg")


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How to predict."""

    overlap: float = 0.5
    """Share of a window that the next one covers too."""
    hop_s: float | None = None
    """From one window to the next [s]; instead of ``overlap``."""
    min_duration_s: float = 0.0
    """Shorter runs are given to a neighbour."""
    subjects: tuple[str, ...] = ()
    """``12`` or ``herd/12``; empty for all."""
    sensor: str | None = None
    resample: bool = False
    statistics_of: str | None = None
    """The data set of training whose statistics scale all recordings, with ``normalize: dataset``."""
    table: Path | None = None
    """The YAML that describes CSV or Parquet files."""
    units: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Kind -> unit of sensors that do not say."""
    skip_bad: bool = False
    batch_size: int = BATCH
    format: str = "parquet"
    """Of the tables in a new folder."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise ConfigError(
                f"--overlap must lie between 0 and {MOST_OVERLAP}, a share of a window; got {self.overlap}"
            )
        if self.min_duration_s < 0:
            raise ConfigError(f"--min_duration_s must be 0 or more, got {self.min_duration_s}")
        if self.batch_size < 1:
            raise ConfigError(f"--batch_size must be at least 1, got {self.batch_size}")
        if self.format not in FORMATS:
            raise ConfigError(f"--format must be {' or '.join(FORMATS)}, got {self.format}")

    def step_s(self, duration_s: float) -> float:
        """From one window to the next [s]."""
        if self.hop_s is None:
            return duration_s * (1 - self.overlap)
        if not 0 < self.hop_s <= duration_s:
            raise ConfigError(
                f"--hop_s must be positive and at most the window's {duration_s:g} s, so that nothing lies between "
                f"two windows; got {self.hop_s:g}"
            )
        return self.hop_s


def options_of(args: argparse.Namespace) -> PredictOptions:
    """The options of parsed flags. Raises ``ConfigError``."""
    units = {kind: unit for kind in KINDS if (unit := getattr(args, f"{kind}_units"))}
    return PredictOptions(
        overlap=args.overlap,
        hop_s=args.hop_s,
        min_duration_s=args.min_duration_s,
        subjects=tuple(args.subject),
        sensor=args.sensor,
        resample=args.resample,
        statistics_of=args.statistics_of,
        table=args.table,
        units=units,
        skip_bad=args.skip_bad,
        batch_size=args.batch_size,
        format=args.format,
    )


def parser(description: str | None) -> Parser:
    """The command line."""
    parser = Parser(description, prog="aar-dist predict")
    parser.add_argument("checkpoint", help="a fine-tuned model: store://name@version, or folder or URL of a version")
    parser.add_argument("recordings", type=Path, help="folder of .hdf5 recordings, one of them, or tables with --table")
    parser.add_argument("out", type=Path, help="a new folder, or a .parquet or .csv file")
    parser.add_argument("--store", help="folder or URL of the store that store:// speaks of (AAR_DIST_STORE)")
    parser.add_argument(
        "--overlap", type=float, default=0.5, help="share of a window the next covers too (%(default)s)"
    )
    parser.add_argument("--hop_s", type=float, help="from one window to the next [s], instead of --overlap")
    parser.add_argument("--min_duration_s", type=float, default=0.0, help="smooth shorter runs away (%(default)s)")
    parser.add_argument("--subject", action="append", default=[], help="predict this one only (may be given again)")
    parser.add_argument("--sensor", help="the sensor to take, where a recording has several that would do")
    parser.add_argument("--resample", action="store_true", help="bring another rate to the nearest one of training")
    parser.add_argument("--statistics_of", metavar="DATASET", help="of training, to scale by (normalize: dataset)")
    parser.add_argument("--table", type=Path, metavar="YAML", help="RECORDINGS are CSV or Parquet, described by this")
    for kind in KINDS:
        parser.add_argument(f"--{kind}_units", help=f"unit of {kind} sensors in files that do not say")
    parser.add_argument("--skip_bad", action="store_true", help="go on without recordings that cannot be used")
    parser.add_argument("--format", choices=FORMATS, default="parquet", help="of the tables in a folder (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=BATCH, help="windows at once (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    return parser
