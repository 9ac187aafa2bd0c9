"""``aar-dist predict``: who did what, from when to when.

aar-dist predict store://cow_walking@latest recordings/my_herd ethogram --store run/store
aar-dist predict store://cow_walking@1 collar_12.csv ethogram.csv --table my_collars.yaml --store run/store
aar-dist predict run/store/models/cow_walking/1 recordings/my_herd ethogram --overlap 0.75 --min_duration_s 10

RECORDINGS is a folder of .hdf5 recordings (or of such folders), one of them, or with --table a CSV or Parquet file or a
folder of these. OUT is a new folder, or a .parquet or .csv file with the others beside it: the ethogram, each animal's
time budget a day, a picture, and what was done. See docs/predict.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aar_dist.base.errors import RecordingError, user_entry
from aar_dist.base.progress import progress
from aar_dist.base.wording import some
from aar_dist.evaluation.device import device_of
from aar_dist.evaluation.ethogram import Runs, averaged, runs_of
from aar_dist.evaluation.ethogram_days import Ethogram, counted_twice
from aar_dist.evaluation.ethogram_files import Results, check_free, write_results
from aar_dist.evaluation.predict_agreement import Agreement
from aar_dist.evaluation.predict_inputs import Clock, Found, open_recordings
from aar_dist.evaluation.predict_model import Predictor, open_predictor
from aar_dist.evaluation.predict_options import PredictOptions, options_of, parser
from aar_dist.evaluation.predict_signal import Signal, signal_of
from aar_dist.evaluation.predict_windows import Said, slide
from aar_dist.recordings.contract import raise_together
from aar_dist.store.checkpoint import Checkpoint
from aar_dist.store.registry import resolve


def predict(
    checkpoint: Checkpoint,
    recordings: Path,
    out: Path,
    options: PredictOptions,
    device: torch.device | str = "cpu",
) -> Results:
    """Predict every recording and write the results, whole or not at all.

    Raises:
        CheckpointError: the model was not fine-tuned.
        ConfigError: an option that the model cannot follow.
        RecordingError: what cannot be used, together; with ``skip_bad`` only if nothing can.
        StorageError: ``out`` exists.
    """
    check_free(out)
    predictor = open_predictor(checkpoint, device, statistics_of=options.statistics_of)
    step_s = options.step_s(predictor.duration_s)
    with open_recordings(recordings, options.table, options.units) as everything:
        found = everything.of(options.subjects)
        signals, bad = _signals(found, predictor, options, recordings)
        made, agreement = _predict_all(signals, predictor, step_s, options, bad)
    ethograms = [e.by(*found.clocks.get(s.recording.path, Clock())) for s, e in made]
    if not ethograms:
        raise RecordingError(f"{recordings}: no recording could be used; the first: {bad[0]}")
    results = Results(
        checkpoint=checkpoint,
        classes=predictor.classes,
        ethograms=tuple(ethograms),
        agreement=agreement.scores(),
        settings=_settings(recordings, predictor, step_s, options),
        notes=(*_notes(signals, ethograms, predictor, agreement), *(f"left out: {error}" for error in bad)),
    )
    write_results(results, out, options.format)
    return results


def _signals(
    found: Found, predictor: Predictor, options: PredictOptions, where: Path
) -> tuple[list[Signal], list[RecordingError]]:
    """What can be used, and with ``skip_bad`` what cannot; without it that is raised together."""
    good: list[Signal] = []
    bad = [*found.bad]
    for recording in found.good:
        try:
            good.append(signal_of(recording, predictor, sensor=options.sensor, resample=options.resample))
        except RecordingError as error:
            bad.append(error)
    if bad and not options.skip_bad:
        n = len(found.good) + len(found.bad)
        if n == 1:
            raise bad[0]
        raise_together(bad, f"{len(bad)} of {n} recordings in {where} cannot be used")
    return good, bad


def _predict_all(
    signals: Sequence[Signal],
    predictor: Predictor,
    step_s: float,
    options: PredictOptions,
    bad: list[RecordingError],
) -> tuple[list[tuple[Signal, Ethogram]], Agreement]:
    """What was predicted of each recording; with ``skip_bad``, one that cannot be read to its end joins the bad."""
    ethograms = []
    agreement = Agreement(predictor, step_s)
    total_s = sum(signal.n / signal.rate_hz for signal in signals)
    with progress(f"predicting {len(signals)} recordings", total_s) as advance:
        for signal in signals:
            try:
                said = slide(predictor, signal, step_s, batch_size=options.batch_size, advance=advance)
                agreement.add(signal.recording, said, signal.n)
            except RecordingError as error:
                if not options.skip_bad:
                    raise
                bad.append(error)
                continue
            ethograms.append((signal, _ethogram(signal, said, predictor, options.min_duration_s)))
    return ethograms, agreement


def _ethogram(signal: Signal, said: Said, predictor: Predictor, min_duration_s: float) -> Ethogram:
    has, recording = said.any_sample, signal.recording
    if predictor.classes is None:
        values = said.output[has, 0].astype(np.float64)
        stop = np.minimum(said.start + predictor.samples(said.rate_hz), signal.n)[has]
        runs = Runs(said.start[has], stop, np.zeros(len(values), np.int64), values)
    else:
        steps = averaged(said.start[has], said.stop[has], said.output[has], said.recorded)
        runs = runs_of(steps, min_duration_s * said.rate_hz)
    return Ethogram(
        dataset=recording.dataset,
        subject=recording.subject,
        recording=recording.recording,
        source=recording.source,
        start_time=recording.start_time,
        duration_s=signal.duration_s,
        start_s=runs.start / said.rate_hz,
        stop_s=np.minimum(runs.stop / said.rate_hz, signal.duration_s),
        label=runs.label,
        value=runs.confidence,
    )


def _settings(recordings: Path, predictor: Predictor, step_s: float, options: PredictOptions) -> dict[str, Any]:
    return {
        "recordings": str(recordings),
        "window_s": predictor.duration_s,
        "hop_s": step_s,
        "min_duration_s": options.min_duration_s,
        "subjects": list(options.subjects),
        "sensor": options.sensor,
        "resample": options.resample,
        "statistics_of": options.statistics_of,
        "table": None if options.table is None else str(options.table),
    }


def _notes(
    signals: Sequence[Signal], ethograms: Sequence[Ethogram], predictor: Predictor, agreement: Agreement
) -> list[str]:
    """What the user should know of how the recordings met the model."""
    notes = []
    short = [s.recording.name for s in signals if s.n < predictor.samples(s.rate_hz)]
    if short:
        notes.append(
            f"{len(short)} recordings are shorter than a window of {predictor.duration_s:g} s and are predicted from "
            f"what there is: {some(short, 5)}"
        )
    empty = [e.source or e.recording for e in ethograms if not len(e)]
    if empty:
        notes.append(f"{len(empty)} recordings hold no sample of what the model takes: {some(empty, 5)}")
    other = sorted({f"{s.rate_hz:g}" for s in signals if not predictor.knows(s.rate_hz)})
    if other:
        trained = ", ".join(f"{rate:g}" for rate in predictor.rates_hz)
        notes.append(f"recorded at {', '.join(other)} Hz, trained at {trained} Hz: the model resamples each patch")
    changed = {f"{s.recorded_hz:g} to {s.rate_hz:g}" for s in signals if s.recorded_hz != s.rate_hz}
    if changed:
        notes.append(f"resampled from {', '.join(sorted(changed))} Hz")
    if known := predictor.statistics:
        lent = sorted({d for s in signals if (d := known.dataset_of(s.recording)) != s.recording.dataset})
        notes += [f"scaled by the statistics of the data set {name}, which the model was trained on" for name in lent]
    if predictor.classes is not None:
        notes += _notes_of_days(ethograms)
    if seen := agreement.trained_on:
        notes.append(f"these subjects trained the model, so agreement with their labels tells little: {some(seen, 5)}")
    if agreement.unknown:
        notes.append(f"labels that the model does not know were left out: {some(sorted(agreement.unknown), 5)}")
    return notes


def _notes_of_days(ethograms: Sequence[Ethogram]) -> list[str]:
    """What the user should know of the budget."""
    notes = []
    if twice := counted_twice(ethograms):
        notes.append(f"recordings of one animal cover the same time, which the budget counts twice: {some(twice, 5)}")
    if any((e.start_time or "").endswith(("+00:00", "Z")) for e in ethograms):
        notes.append("start times are told in UTC, so the days are those of UTC")
    return notes


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Predict recordings."""
    args = parser(__doc__).parse_args(argv)
    options, device = options_of(args), device_of(args.device)
    results = predict(resolve(args.checkpoint, args.store), args.recordings, args.out, options, device)
    print(results.summary(args.out))
