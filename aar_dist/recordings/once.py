"""Keep every stretch of a data set once.

    byte-identical twin            -> the second is removed
    overlap, the same samples      -> the second loses the shared stretch, or is removed where nothing is left
    labels differ where shared     -> that stretch becomes unlabelled in what stays
    overlap, other samples         -> both stay (two devices), and it is told

Works on HDF5 files of a data set that is still being made; what is published is never changed.
"""

import os
from collections.abc import Sequence
from datetime import timedelta

import h5py
import numpy as np

from aar_dist.base.storage import staging_name
from aar_dist.recordings.audit import Shared, by_start, find_twins, overlap, started, still_going_on
from aar_dist.recordings.contract import read_labels, read_recording
from aar_dist.recordings.recording import LABEL, UNLABELLED, Recording


def keep_once(recordings: Sequence[Recording]) -> tuple[list[Recording], list[str]]:
    """What is left of the recordings, in their order, and a note for each thing done."""
    notes: list[str] = []
    left = {r.path: r for r in recordings}
    for twin in find_twins(recordings):
        notes.append(f"{twin.second.name} is byte-identical to {twin.first.name}: left out" + _unlabel(twin))
        twin.second.path.unlink()
        del left[twin.second.path]
    for subject in sorted({(r.dataset, r.subject) for r in left.values()}):
        group = [r for r in left.values() if (r.dataset, r.subject) == subject]
        kept = _without_overlaps(by_start(group), notes)
        for recording in by_start(group):
            del left[recording.path]
        left |= {r.path: r for r in kept} | {r.path: r for r in group if not r.start_time}
    order = {r.path: i for i, r in enumerate(recordings)}
    return sorted(left.values(), key=lambda r: order[r.path]), notes


def _without_overlaps(recordings: Sequence[Recording], notes: list[str]) -> list[Recording]:
    """The recordings of one subject, earliest first, each cut short by what those before it already hold."""
    kept: list[Recording] = []
    going_on: list[Recording] = []
    for recording in recordings:
        rest: Recording | None = recording
        going_on = still_going_on(going_on, recording)
        for earlier in going_on:
            shared = overlap(earlier, rest) if rest is not None else None
            if shared is not None:
                rest = _keep_in_first(shared, notes)
        if rest is not None:
            kept.append(rest)
            going_on.append(rest)
    return kept


def _keep_in_first(shared: Shared, notes: list[str]) -> Recording | None:
    """The second recording without the shared stretch; None where it is no longer there."""
    told = f"{shared.second.name} shares {shared.duration_s:g} s with {shared.first.name}"
    if not shared.identical:
        notes.append(f"{told}, with other samples: both kept")
        return shared.second
    whole = shared.n >= shared.second.sensors[0].n_samples
    notes.append(f"{told}: {'left out' if whole else 'kept there only'}" + _unlabel(shared))
    if whole:
        shared.second.path.unlink()
        return None
    _cut_head(shared.second, shared.n)
    return read_recording(shared.second.path)


def _unlabel(shared: Shared) -> str:
    """Where the labels of a shared stretch differ, the first recording forgets its own; what was done, in words."""
    first, second = shared.first.label, shared.second.label
    if first is None or second is None or first.classes is None:
        return ""
    clock = first.rate_hz / shared.first.sensors[0].rate_hz
    a, b = round(shared.first_start * clock), round((shared.first_start + shared.n) * clock)
    start = round(shared.second_start * clock)
    ours, theirs = read_labels(shared.first, a, b), read_labels(shared.second, start, start + b - a)
    differ = ours != theirs
    if not differ.any():
        return ""
    with h5py.File(shared.first.path, "r+") as file:
        file[LABEL][a:b] = np.where(differ, UNLABELLED, ours)
    return f"; {int(differ.sum())} samples of {shared.first.name} labelled differently there: now unlabelled"


def _cut_head(recording: Recording, n: int) -> None:
    """Rewrite a file without its first n samples (of the first sensor), with the start time moved on."""
    head_s = n / recording.sensors[0].rate_hz
    staged = staging_name(recording.path)
    with h5py.File(recording.path, "r") as old, h5py.File(staged, "w", libver=("v110", "v110")) as new:
        new.attrs.update(dict(old.attrs))
        start = started(recording)
        if start is not None:
            new.attrs["start_time"] = (start + timedelta(seconds=head_s)).isoformat()
        for name, data in old.items():
            tail = new.create_dataset(name, data=data[round(head_s * data.attrs["sr"]) :], track_times=False)
            tail.attrs.update(dict(data.attrs))
    os.replace(staged, recording.path)
