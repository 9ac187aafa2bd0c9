"""What to stream: shard sets, segments, mixture, order."""

from argparse import ArgumentTypeError
from dataclasses import dataclass, field
from typing import Literal

from aar_dist.base.cli import size_in_bytes
from aar_dist.base.errors import ConfigError

Statistics = dict[str, dict[str, dict[str, list[float]]]]
"""Data set -> sensor -> axis -> [mean, standard deviation], in the unit of the kind."""


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """How many segments of each data set one epoch draws."""

    rule: Literal["capped", "temperature", "proportional", "uniform"] = "capped"
    """``capped``: each data set oversampled by ``oversampling_factor``, at most ``max_dataset_imbalance`` times the
    smallest. ``temperature``: p ~ hours**alpha. ``proportional``: p ~ hours. ``uniform``: every data set alike."""
    oversampling_factor: float = 5.0
    """Seconds drawn in an epoch for each second recorded."""
    max_dataset_imbalance: float = 4.0
    """``capped``: the largest data set is drawn at most this many times as long as the smallest."""
    alpha: float = 0.5
    """``temperature``: exponent of the hours."""
    within: Literal["duration", "subject"] = "duration"
    """Inside a data set: by recorded duration, or every subject alike."""

    def __post_init__(self) -> None:
        if self.oversampling_factor <= 0:
            raise ConfigError(f"data.mixture.oversampling_factor must be positive, got {self.oversampling_factor}")
        if self.max_dataset_imbalance < 1:
            raise ConfigError(
                f"data.mixture.max_dataset_imbalance must be at least 1, got {self.max_dataset_imbalance}"
            )
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"data.mixture.alpha must lie in [0, 1], got {self.alpha}")


Normalize = Literal["none", "centre", "segment", "recording", "dataset"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The stream of segments."""

    shards: list[str] = field(default_factory=list)
    """Shard sets made by shards/build.py: folders, or URLs of them (s3://…, https://…)."""
    sensors: str | list[str] = "each"
    """``each`` draws every sensor by itself; ``all`` or a list of names draws the same seconds of several."""
    kinds: list[str] = field(default_factory=lambda: ["acc"])
    """``each``: the kinds of sensor drawn (acc, gyr, mag, ecg, ppg); empty for every kind."""
    segment_duration: float = 10.0
    """Length of one segment [s]."""
    max_window_length: int = 1000
    """Longest segment handed on [samples]; what a segment has beyond it is cut off."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    normalize: Normalize = "none"
    """``centre`` takes each axis's mean off a segment and leaves its scale; the others are z-scores per axis with the
    statistics of the segment, its recording or its data set."""
    statistics: Statistics | None = None
    """With ``normalize: dataset``: data set -> sensor -> axis -> [mean, standard deviation]. A run writes down those it
    measured, and what starts from its model follows them; what they do not name is measured."""
    random_seed: int = 578
    """Seed of the order, the offsets and the masks."""
    lanes: int = 256
    """Places of the epoch that a batch draws from at once."""
    shuffle_block: int = 4096
    """Segments of a lane that are shuffled together."""
    reader_threads: int = 1
    """Prefetch threads a rank."""
    prefetch_batches: int = 8
    """Batches planned and cut ahead."""
    resident: Literal["auto", "never", "always"] = "auto"
    """Put the samples of the split on the device once and cut there: ``auto`` on a GPU that has room, ``always`` on
    any device, or end with an error. The batches are the same."""
    resident_limit: int | str | None = None
    """Bytes (8GB) that each rank may take for one split; null for a third of what is free on the device."""
    cache: str | None = None
    """Folder for what is read from URLs; null for the variable AAR_DIST_CACHE, else ~/.cache/aar_dist."""
    cache_limit: int | str | None = None
    """Bytes (100GB) that the cache may hold; null for half of what its disk has for it."""
    downloads: int = 4
    """Shards that a rank downloads at a time, ahead of need."""

    def __post_init__(self) -> None:
        for name in (
            "segment_duration",
            "max_window_length",
            "lanes",
            "shuffle_block",
            "reader_threads",
            "prefetch_batches",
            "downloads",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"data.{name} must be positive, got {getattr(self, name)}")
        self.resident_bytes, self.cache_bytes  # noqa: B018  raise if they are no sizes
        told = self.statistics or {}
        for name, pair in ((f"{d}.{s}.{a}", told[d][s][a]) for d in told for s in told[d] for a in told[d][s]):
            if len(pair) != 2 or pair[1] <= 0:
                raise ConfigError(f"data.statistics.{name} must be [mean, a positive deviation], got {pair}")

    @property
    def resident_bytes(self) -> int | None:
        """``resident_limit`` as a number. Raises ``ConfigError`` if it is no size."""
        return self._bytes("resident_limit")

    @property
    def cache_bytes(self) -> int | None:
        """``cache_limit`` as a number. Raises ``ConfigError`` if it is no size."""
        return self._bytes("cache_limit")

    def _bytes(self, name: str) -> int | None:
        size = getattr(self, name)
        try:
            return None if size is None else size_in_bytes(str(size))
        except ArgumentTypeError as error:
            raise ConfigError(f"data.{name}: {error}") from None
