"""Real windows to compare on: as they were recorded, and what the stored model says of them.

shards -> windows of one form, drawn evenly -> values (n, T, C), NaN where nothing was recorded
                                            -> the stream, as in training -> model -> said (n, …)
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from aar_dist.base.errors import ConfigError
from aar_dist.base.hashing import hash_np, word
from aar_dist.evaluation.arrays import batches_once
from aar_dist.evaluation.embed import drawn
from aar_dist.evaluation.exporting.form import Form, Seen
from aar_dist.evaluation.exporting.windowed import Scaling
from aar_dist.recordings.units import CANONICAL, kind_of, unit_handed_on
from aar_dist.stream.config import DataConfig
from aar_dist.stream.cuts import channels_of
from aar_dist.stream.manifests import Manifests, of_sensors
from aar_dist.stream.source import Source, first_rows
from aar_dist.stream.windows import WindowConfig, WindowTable, open_windows, window_stream
from aar_dist.training.finetuning.predictions import Predicts
from aar_dist.training.finetuning.task import seen_by

Floats = NDArray[np.float32]
BATCH = 64
HOLES = word("holes in exported windows")


@dataclass(frozen=True)
class Recorded:
    """All windows of some shards."""

    data: DataConfig
    """As in training."""
    source: Source
    table: WindowTable

    @property
    def seen(self) -> Seen:
        """Rates and columns."""
        return Seen.of(seen_by(self.source, self.table))


@dataclass(frozen=True)
class Known:
    """n windows and what the stored model says of them."""

    values: Floats
    """(n, T, C) in the units of the channels, NaN where nothing was recorded."""
    said: Floats
    """(n, …)."""


def open_recorded(data: DataConfig) -> Recorded:
    """Every window of the shards, whether it carries a label or not."""
    return Recorded(data, *open_windows(data, WindowConfig(), unlabelled=True))


def known_windows(recorded: Recorded, form: Form, scaling: Scaling | None, model: nn.Module, limit: int) -> Known:
    """At most ``limit`` windows of this form, drawn evenly.

    Raises:
        ConfigError: the shards have none.
    """
    table = drawn(_of_form(recorded, form, scaling), limit)
    if not len(table):
        raise ConfigError(
            f"{', '.join(recorded.data.shards)}: no window of {', '.join(form.channels)} at {form.rate_hz:g} Hz"
            + (f" of {scaling.name}" if scaling else "")
            + " to compare on; give shards that have some, or --no_parity"
        )
    return Known(_values(recorded, form, table), _said(recorded, table, model))


def with_holes(values: Floats) -> Floats:
    """The windows again, each with a hole of its own: a stretch of all channels, a channel, the end, everything."""
    made = values.copy()
    n, length, width = made.shape
    draw = hash_np(HOLES, np.arange(n)[:, None], np.arange(3)).astype(np.uint64)
    for k, (a, b, c) in enumerate(draw.tolist()):
        first, last = sorted((a % length, b % (length + 1)))
        holes = [slice(first, last), slice(first, None), slice(None), slice(first, last)]
        channel = slice(None) if k % 4 in (0, 1) else c % width
        made[k, holes[k % 4], channel] = np.nan
    made[-1] = np.nan
    return made


def units_of(form: Form, data: DataConfig) -> tuple[str, ...]:
    """Of each channel: as the shards tell, or where there are none, the usual one of its kind."""
    if data.normalize == "recording":
        return ("z-score of its recording",) * len(form.channels)
    prefixes = [channel.rpartition(".")[0] for channel in form.channels]
    told = _units(data) if data.shards else {}
    return tuple(told.get(prefix, CANONICAL[kind_of(prefix)]) for prefix in prefixes)


def _units(data: DataConfig) -> dict[str, str]:
    """Unit of each sensor, and of each kind; where recordings differ, all of them."""
    manifests = Manifests(data)
    rows = of_sensors(manifests, data)
    columns = [manifests.names(name) for name in ("sensor", "kind", "units")]
    found: dict[str, set[str]] = {}
    for sensor, kind, unit in {*zip(*(codes[rows].tolist() for codes, _ in columns), strict=True)}:
        (_, sensors), (_, kinds), (_, units) = columns
        for name in (sensors[sensor], kinds[kind]):
            found.setdefault(name, set()).add(unit_handed_on(kinds[kind], units[unit]))
    manifests.release()
    return {name: " or ".join(sorted(units)) for name, units in found.items()}


def _of_form(recorded: Recorded, form: Form, scaling: Scaling | None) -> WindowTable:
    source, table = recorded.source, recorded.table
    row = first_rows(source.parts[table.item])
    parts, which = np.unique(source.parts[table.item], axis=0, return_inverse=True)
    names = np.array([*source.channels, None], dtype=object)
    fits = np.array([form.agrees(tuple(columns)) for columns in names[channels_of(source, parts)]], bool)
    taken = fits[which.reshape(-1)] & np.isclose(source.rows.rate_hz[row], form.rate_hz, rtol=1e-9)
    if scaling is not None:
        taken &= table.dataset == scaling.dataset
        if scaling.sensor is not None:
            taken &= source.origin["sensor"][row] == scaling.sensor
    return table.select(taken)


def _values(recorded: Recorded, form: Form, table: WindowTable) -> Floats:
    """The samples as they were recorded, in units; of ``normalize: recording``, as z-scores of their recordings."""
    data, source = recorded.data, recorded.source
    if data.normalize != "recording":
        data = replace(data, normalize="none", statistics=None)
        source, _ = open_windows(data, WindowConfig(), unlabelled=True)
    place = [k for k, name in enumerate(form.columns) if name is not None]
    parts = []
    with window_stream(source, table, data, shuffle=False) as stream:
        for batch in batches_once(stream, BATCH):
            values = torch.where(batch.valid, batch.values, torch.nan)[:, : form.samples]
            parts.append(values[..., place].numpy())
    made: Floats = np.concatenate(parts)
    return made


def _said(recorded: Recorded, table: WindowTable, model: nn.Module) -> Floats:
    assert isinstance(model, Predicts), "answering() made it"
    with window_stream(recorded.source, table, recorded.data, shuffle=False) as stream, torch.inference_mode():
        made: Floats = np.concatenate([model.predict(batch).numpy() for batch in batches_once(stream, BATCH)])
    return made
