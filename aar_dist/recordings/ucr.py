"""The UCR and UEA archives of time series, such as ECG5000: pre-cut windows, each with one label.

    <name>_TRAIN.tsv, <name>_TEST.tsv     or     <name>_TRAIN.ts, <name>_TEST.ts

A series is a recording: nothing in the archive says that one follows another, so they are never put behind each other.
The archive tells neither rate nor unit nor whose series they are:

- ``--rate_hz`` is asked for. Where series were stretched to one length (ECG5000), no rate is true; one that makes a
  series as long as a usual segment will do.
- ``--sensor`` (``series``, of kind `other`, if not given) and ``--units`` (``arbitrary``).
- Species and subject are `unknown`, one for all, so that folds by subject are refused rather than made up.

The published split stands in the names of the recordings: ``unknown_train_ds_0``, ``unknown_test_ds_0``. Results are
compared by it, so identical series are told and kept.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aar_dist.base.errors import ConfigError, RecordingError
from aar_dist.recordings.converter import About, Converter, Job, Options, Take
from aar_dist.recordings.names import fault_of_dataset
from aar_dist.recordings.recording import UNLABELLED
from aar_dist.recordings.ucr_files import SeriesFile, in_order, parse_values, read_file
from aar_dist.recordings.write import SensorData, encode_labels

UNKNOWN = "unknown"
SENSOR, UNITS = "series", "arbitrary"
PARTS = ("TRAIN", "TEST")
FORMS = (".ts", ".tsv")
"""In the order in which they are taken: .ts names its classes."""
PADDED = "missing values behind the end of a series: cut off, the series is shorter"
GAPS = "missing values inside a series: kept as NaN"
_NAME = re.compile(r"(?P<problem>.+)_(?:TRAIN|TEST)")


def plan(folder: Path, options: Options) -> Sequence[Job]:
    """A job for each series of the training set, then of the test set."""
    paths = _find(folder, options)
    if options.rate_hz is None:
        raise RecordingError(
            f"{options.source}: tells no sampling rate; give it with --rate_hz, or, where series were stretched to one "
            "length, a rate that makes them as long as you want to call them"
        )
    files = [read_file(path) for path in paths]
    classes = _classes(files)
    return [
        Job(
            f"{file.path.name} line {number}",
            partial(_read, file, part.lower(), number, label, texts, classes, options),
        )
        for part, file in zip(PARTS, files, strict=True)
        for number, label, texts in file.lines
    ]


def _find(folder: Path, options: Options) -> list[Path]:
    """The training and the test file of the one problem that is there."""
    found = [path for form in FORMS for path in sorted(folder.rglob(f"*{form}")) if _NAME.fullmatch(path.stem)]
    if not found:
        raise RecordingError(
            f"{options.source}: holds no <name>_TRAIN.tsv or <name>_TRAIN.ts; give one problem's folder"
        )
    problems = {path.stem.rpartition("_")[0] for path in found}
    if len(problems) > 1:
        names = ", ".join(sorted(problems)[:3])
        raise RecordingError(f"{options.source}: holds {len(problems)} problems ({names} …); give the folder of one")
    paths = [found[0].with_name(f"{problem}_{part}{found[0].suffix}") for problem in problems for part in PARTS]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise RecordingError(f"{options.source}: {missing[0]} is missing; it belongs to the published set")
    return paths


def _classes(files: Sequence[SeriesFile]) -> tuple[str, ...] | None:
    """The classes of both files in their order; None where labels are targets, or where there are none."""
    if len({(file.classes is None, file.target) for file in files}) > 1:
        raise RecordingError(f"{files[0].path}: has other labels than {files[1].path.name}; download both again")
    if files[0].classes is None:
        return None
    named = tuple(dict.fromkeys(name for file in files for name in file.classes or ()))
    return named if files[0].path.suffix == ".ts" else in_order(named)


def _read(
    file: SeriesFile,
    part: str,
    number: int,
    label: str,
    texts: Sequence[str],
    classes: tuple[str, ...] | None,
    options: Options,
) -> list[Take]:
    values, padding = parse_values(file, number, texts)
    name = options.sensor or SENSOR
    assert options.rate_hz is not None, "asked for in plan"
    sensor = SensorData(
        values=values,
        rate_hz=options.rate_hz,
        units=options.units or UNITS,
        axes=tuple(str(i) for i in range(values.shape[1])),
    )
    return [
        Take(
            source=f"{file.path.name} line {number}",
            species=UNKNOWN,
            subject=UNKNOWN,
            individual=part,
            sensors={name: sensor},
            label=_label(file, number, label, classes, len(values)),
            classes=classes,
            notes=(PADDED,) * bool(padding) + (GAPS,) * bool(np.isnan(values).any()),
        )
    ]


def _label(
    file: SeriesFile, number: int, label: str, classes: tuple[str, ...] | None, n: int
) -> NDArray[np.int16] | NDArray[np.float32] | None:
    """(n,) the one label of a series at each of its samples."""
    what = f"{file.path}: line {number}"
    if classes is not None:
        try:
            of = encode_labels([label], classes)[0] if label else UNLABELLED
        except RecordingError as error:
            raise RecordingError(f"{what}: {error}") from error
        return np.full(n, of, np.int16)
    if not file.target:
        return None
    try:
        return np.full(n, float(label or "nan"), np.float32)
    except ValueError:
        raise RecordingError(
            f"{what}: the target is {label!r}, expected a number, or `?` where there is none"
        ) from None


def _dataset(options: Options) -> str:
    """The name of the archive or folder, up to its first dot."""
    name = options.source.resolve().name.partition(".")[0]
    fault = fault_of_dataset(name)
    if fault:
        raise ConfigError(f"{options.source}: names the data set, but {fault}; rename it")
    return name


CONVERTER = Converter(
    name="ucr",
    dataset=_dataset,
    plan=plan,
    takes=("rate_hz", "sensor", "units"),
    keeps_twins=True,
    about=About(
        what="one problem of the UCR or UEA archive, such as ECG5000: pre-cut series with one label each",
        layout="<name>_TRAIN.tsv and <name>_TEST.tsv, or .ts (several dimensions, unequal lengths, targets)",
        sensors="--sensor (default series, of kind other; ecg, acc … where that is what it is), --units (default "
        "arbitrary, which most series are: z-scores)",
        rate="not published: --rate_hz",
        labels="classes (the published names) or targets, one for each series",
        who="not published: one subject, unknown, so there are no folds by subject; ECG5000 is one patient, 500 + "
        "4,500 beats of 140 samples",
        licence="see publisher",
        source="https://www.timeseriesclassification.com (.ts), "
        "https://www.cs.ucr.edu/~eamonn/time_series_data_2018 (.tsv)",
        watch="beats of ECG5000 were stretched to one length: no rate is true. Its class 5 has two training beats. The "
        "data set is named like SOURCE; the published split stands in the recordings' names (…_train_ds_0). Identical "
        "series are told and kept. Missing values stay NaN, those behind the end are cut off. Series with time stamps "
        "are refused",
    ),
)
