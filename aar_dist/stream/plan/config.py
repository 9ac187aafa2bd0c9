"""What a plan is asked for: data, cluster, training."""

import argparse
from dataclasses import dataclass, field

from aar_dist.base.cli import size_in_bytes
from aar_dist.base.errors import ConfigError
from aar_dist.stream.config import DataConfig


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """The machines."""

    nodes: int = 1
    """Machines, each with a cache and a link of its own."""
    ranks_per_node: int = 1
    """Processes (GPUs) on each."""
    bandwidth: str | None = None
    """What one node can fetch in a second, such as 2GB/s; null where the shards are on its own disk."""
    cache: str | None = None
    """What one node can keep, such as 1TB; null for room enough."""
    step_seconds: float | None = None
    """Time of one optimizer step when it never waits for data [s]."""
    segments_per_second: float | None = None
    """The same told otherwise: segments that the whole cluster can train on in a second."""

    def __post_init__(self) -> None:
        for name in ("nodes", "ranks_per_node"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("step_seconds", "segments_per_second"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"--{name} must be positive, got {value}")
        if self.step_seconds and self.segments_per_second:
            raise ConfigError("--step_seconds and --segments_per_second say the same: give one of them")
        _ = self.cache_bytes, self.bytes_per_second  # complain at once

    @property
    def world_size(self) -> int:
        """Ranks of all nodes."""
        return self.nodes * self.ranks_per_node

    @property
    def cache_bytes(self) -> int | None:
        """``cache`` as a number."""
        return _size("cache", self.cache, self.cache)

    @property
    def bytes_per_second(self) -> int | None:
        """``bandwidth`` as a number."""
        return _size("bandwidth", self.bandwidth, self.bandwidth and self.bandwidth.removesuffix("/s"))

    def step_s(self, batch_size: int) -> float | None:
        """Time of a step that waits for nothing [s], if it was told."""
        return batch_size / self.segments_per_second if self.segments_per_second else self.step_seconds


def _size(name: str, given: str | None, text: str | None) -> int | None:
    if given is None or text is None:
        return None
    try:
        size = size_in_bytes(text)
    except argparse.ArgumentTypeError:
        size = 0
    if size < 1:
        example = {"cache": "1TB", "bandwidth": "2GB/s"}[name]
        raise ConfigError(f"--{name}: {given!r} is no size, expected one such as {example}")
    return size


@dataclass(frozen=True, kw_only=True)
class ShapeConfig:
    """What of the training decides which segment is read when."""

    batch_size: int = 512
    """Segments in one optimizer step, over all ranks."""
    epochs: int = 1
    """Times the mixture is drawn."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Plan the reading of a run before it is paid for: aar-dist plan SHARDS [SHARDS …] --nodes 64 …"""

    data: DataConfig = field(default_factory=DataConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    train: ShapeConfig = field(default_factory=ShapeConfig)

    def __post_init__(self) -> None:
        world, batch = self.cluster.world_size, self.train.batch_size
        if batch % world:
            raise ConfigError(
                f"--batch_size {batch} is not divisible by {self.cluster.nodes} nodes x {self.cluster.ranks_per_node} "
                f"ranks = {world}; choose {' or '.join(map(str, near_batches(batch, world)))}"
            )


def near_batches(batch_size: int, world_size: int) -> list[int]:
    """The multiples of the world size on either side of a batch size; itself and its neighbours if it is one."""
    below = batch_size // world_size * world_size
    found = [below, below + world_size] if batch_size % world_size else [below - world_size, below, below + world_size]
    return [size for size in found if size]
