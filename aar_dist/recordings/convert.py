"""Published recordings into the HDF5 contract.

aar-dist convert --list                                             # and --list hapt, --list --json
aar-dist convert hapt hapt_raw.tar.xz data                          # data/hapt/human_01_ds_0.hdf5 …
aar-dist convert otariids otariids_raw.tar.xz data --label behaviour
aar-dist convert ucr ECG5000.zip data --rate_hz 140 --sensor ecg
aar-dist convert table my_csvs data --yaml my_table.yaml
"""

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aar_dist.base.cli import Parser
from aar_dist.base.errors import ConfigError, RecordingError, user_entry
from aar_dist.base.progress import progress
from aar_dist.recordings import but_ppg, cow_walking, hapt, motionsense, otariids, table, troika, ucr
from aar_dist.recordings.audit import find_twins
from aar_dist.recordings.contract import raise_together, read_recording
from aar_dist.recordings.converter import Converter, Job, Options
from aar_dist.recordings.listing import as_json, as_table
from aar_dist.recordings.once import keep_once
from aar_dist.recordings.out import new_folder
from aar_dist.recordings.recording import Recording
from aar_dist.recordings.source import open_source

CONVERTERS: Mapping[str, Converter] = {
    module.CONVERTER.name: module.CONVERTER
    for module in (cow_walking, otariids, hapt, motionsense, troika, but_ppg, ucr, table)
}


@dataclass
class Result:
    """What a conversion made, met and left out."""

    recordings: list[Recording] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bad: list[RecordingError] = field(default_factory=list)

    def summary(self) -> str:
        """Recordings, subjects and hours in one line."""
        hours = sum(r.duration_s for r in self.recordings) / 3600
        subjects = len({r.subject for r in self.recordings})
        return f"{len(self.recordings)} recordings of {subjects} subjects, {hours:.2f} h"


def convert(
    converter: Converter,
    out: Path,
    options: Options,
    *,
    keep_duplicates: bool = False,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> tuple[Path, Result]:
    """Convert a published data set into ``out/<dataset>``, which appears whole or not at all."""
    target = out / converter.dataset(options)
    _check_apart(options.source, target)
    with new_folder(target, overwrite=overwrite) as staging, open_source(options.source) as folder:
        jobs = converter.plan(folder, options)
        told = _left_out(jobs)
        jobs = [job for job in jobs if not job.left_out]
        disputed = [] if keep_duplicates else [job.name for job in jobs if job.name in converter.disputed]
        jobs = [job for job in jobs if job.name not in disputed]
        result = _write_all(jobs, staging, target.name)
        result.notes += told + [
            f"{name}: the same recording has another animal's name too: left out" for name in disputed
        ]
        # People know the archive and the folder they named, not where we unpack and stage.
        result.bad = [_told_as(error, {folder: options.source, staging: target}) for error in result.bad]
        if not skip_bad:
            raise_together(result.bad, f"{len(result.bad)} of {len(jobs)} files of {options.source} cannot be used")
        if not result.recordings:
            why = f"the first: {result.bad[0]}" if result.bad else "what is there is left out without --keep_duplicates"
            raise RecordingError(f"{options.source}: no file could be used; {why}")
        if converter.keeps_twins:
            result.notes += _told_twins(result.recordings)
        elif not keep_duplicates:
            result.recordings, notes = keep_once(result.recordings)
            result.notes += notes
    return target, result


def _check_apart(source: Path, target: Path) -> None:
    """With --overwrite, the published files would be replaced by what was made of them."""
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        raise ConfigError(
            f"{target}: is {'SOURCE' if target.resolve() == source.resolve() else 'above SOURCE'}; "
            "the data set would replace the published files: give another OUT"
        )


def _write_all(jobs: Sequence[Job], staging: Path, dataset: str) -> Result:
    """Every job's takes as recordings, numbered for each subject in order."""
    result = Result()
    numbers: Counter[str] = Counter()
    with progress(f"converting {dataset}", len(jobs)) as advance:
        for job in jobs:
            try:
                for take in job.read():
                    individual = take.individual or take.subject
                    paths = take.write(staging, dataset, numbers[individual])
                    numbers[individual] += len(paths)
                    result.recordings += [read_recording(p) for p in paths]
                    result.notes += take.notes
            except RecordingError as error:
                result.bad.append(error)
            advance()
    return result


def _left_out(jobs: Sequence[Job]) -> list[str]:
    """A line for each reason: the first file, how many more."""
    names: dict[str, list[str]] = {}
    for job in jobs:
        if job.left_out:
            names.setdefault(job.left_out, []).append(job.name)
    more = {why: f" and {len(of) - 1:,} more" if len(of) > 1 else "" for why, of in names.items()}
    return [f"{of[0]}{more[why]}: {why}: left out" for why, of in names.items()]


def _told_twins(recordings: Sequence[Recording]) -> list[str]:
    """A line where some are byte-identical."""
    twins = find_twins(recordings)
    if not twins:
        return []
    pair = f"{twins[0].second.name} to {twins[0].first.name}"
    return [f"{len(twins)} of {len(recordings)} are byte-identical to another ({pair} …): kept, as published"]


def _told_as(error: RecordingError, names: Mapping[Path, Path]) -> RecordingError:
    text = str(error)
    for place, name in names.items():
        text = text.replace(str(place), str(name))
    return RecordingError(text)


def _chosen(name: str | None) -> Converter:
    if name is None or name not in CONVERTERS:
        raise ConfigError(f"{name}: no such converter; use one of {', '.join(CONVERTERS)} (see --list)")
    return CONVERTERS[name]


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """``aar-dist convert``."""
    args = _parser().parse_args(argv)
    if args.list:
        chosen = [_chosen(args.name)] if args.name else list(CONVERTERS.values())
        print(as_json(chosen) if args.json else as_table(chosen))
        return
    if args.name is None or args.source is None or args.out is None:
        raise ConfigError("give NAME SOURCE OUT, or --list for the names")
    converter = _chosen(args.name)
    options = Options(
        source=args.source,
        label=args.label,
        index=args.index,
        yaml=args.yaml,
        rate_hz=args.rate_hz,
        sensor=args.sensor,
        units=args.units,
    )
    converter.check(options)
    target, result = convert(
        converter,
        args.out,
        options,
        keep_duplicates=args.keep_duplicates,
        skip_bad=args.skip_bad,
        overwrite=args.overwrite,
    )
    for note, times in Counter(result.notes).items():
        print(note if times == 1 else f"{note} ({times:,} times)")
    for error in result.bad:
        print(f"left out: {error}")
    print(f"{target}: {result.summary()}")


def _parser() -> Parser:
    parser = Parser("Convert published recordings to HDF5.", prog="aar-dist convert")
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"{', '.join(CONVERTERS)}")
    parser.add_argument("source", nargs="?", type=Path, metavar="SOURCE", help="folder or archive, as published")
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT", help="folder for the data set's folder")
    parser.add_argument("--list", action="store_true", help="what each converter reads and makes, or NAME alone")
    parser.add_argument("--json", action="store_true", help="with --list: the same for programs")
    parser.add_argument("--label", help="which label, where a set has several (see --list)")
    parser.add_argument("--index", type=Path, help="index file with what the set itself does not say (otariids: rates)")
    parser.add_argument("--yaml", type=Path, help="description of the files, for `table`")
    parser.add_argument("--rate_hz", type=_positive, help="sampling rate, where the publisher tells none (ucr)")
    parser.add_argument("--sensor", help="what the series are, such as ecg or acc (ucr; default: series)")
    parser.add_argument("--units", help="their unit (ucr; default: arbitrary)")
    parser.add_argument("--keep_duplicates", action="store_true", help="keep what is recorded twice")
    parser.add_argument("--skip_bad", action="store_true", help="go on without the files that cannot be used")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder of the data set where it exists")
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value
