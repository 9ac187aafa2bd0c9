"""What a plan says. JSON has the same keys."""

from dataclasses import asdict, dataclass
from typing import Any

from aar_dist.stream.columns import Floats
from aar_dist.stream.plan.quality import Quality
from aar_dist.stream.tape import Ints


@dataclass(frozen=True)
class Spread:
    """Least, mean and most over ranks or nodes."""

    least: float
    mean: float
    most: float

    @classmethod
    def of(cls, values: Ints | Floats) -> "Spread":
        """Of these values."""
        x = values.astype(float)
        return cls(*(round(float(v), 3) for v in (x.min(), x.mean(), x.max()))) if x.size else cls(0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What ranks and nodes read in the epochs played."""

    shards_per_rank: Spread
    """In an epoch."""
    shards_per_node: Spread
    bytes_per_node: Spread
    """Of those shards."""
    readers_per_shard: float
    """Nodes that read a shard in an epoch, on average."""
    rank_maps: Spread
    """Most bytes of shards that a rank has in use at one time."""
    node_uses: Spread
    """The same of a node: the least cache."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Fetched by a node in one epoch [bytes]."""

    fetched: Spread
    again: Spread
    """Of it, what the node had before."""


@dataclass(frozen=True, kw_only=True)
class Caching:
    """The caches and links of the nodes."""

    fits: bool
    """What is in use at one time fits the cache."""
    least: int
    """The smallest cache that runs [bytes]."""
    no_refetch: int
    """The smallest cache, to a few per cent, with which no node fetches anything twice in the epochs played."""
    evicted: int
    """Shards that gave way, over all nodes looked at."""
    epochs: tuple[Epoch, ...]
    first_batch_s: float | None
    """Time until the shards of the first batch are there; None without --bandwidth."""
    stall_s: float | None
    """Time that all wait for data in the epochs played, the first batch's included; None without a step's time."""
    stall_share: float | None
    """Of the whole time."""
    break_even_step_s: float | None
    """A step as short as this keeps the busiest link busy all the time."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All of it; JSON has these keys."""

    shards: list[str]
    identity: str
    world_size: int
    batch_size: int
    segments_per_rank: int
    lanes: int
    shuffle_block: int
    segments: int
    """In an epoch."""
    data_sets: dict[str, int]
    """Segments of each in an epoch."""
    chunks: int
    n_shards: int
    bytes: int
    """Of the split's shards."""
    steps_per_epoch: float
    steps: int
    """Of the whole run."""
    epochs: int
    epochs_played: int
    demand: Demand
    caching: Caching
    quality: Quality
    batch_sizes: list[int]
    """That the ranks divide: this one and its neighbours."""
    even_lanes: list[int]
    """Values of data.lanes with which every lane belongs to one rank."""
    not_exact: list[str]
    """What was sampled or derived."""
    timeline: dict[str, list[float]]
    """Over the steps played: step, bytes fetched by a node so far (mean, most), bytes in its cache (mean, most)."""
    advice: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
