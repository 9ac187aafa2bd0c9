"""Lanes and blocks that shuffle well enough, tried out.

tape that shuffles poorly -> more lanes until batches have the mixture, longer blocks until chunks are spread
"""

from dataclasses import dataclass

from aar_dist.stream.plan.config import PlanConfig
from aar_dist.stream.plan.demand import demand, most_at_once, per_node
from aar_dist.stream.plan.quality import Quality, quality
from aar_dist.stream.source import Source
from aar_dist.stream.tape import Ints, Tape

LOOKED = 6  # batches at each try


@dataclass(frozen=True, kw_only=True)
class Better:
    """Settings that were tried."""

    lanes: int
    shuffle_block: int
    quality: Quality
    node_uses: int
    """The most that a node has then in use at one time [bytes]."""


def even_lanes(batch_size: int, world_size: int) -> list[int]:
    """All numbers of lanes of which every rank has equally many to itself, each as often in every batch."""
    share = batch_size // world_size
    return [world_size * k for k in range(1, share + 1) if share % k == 0]


def better(source: Source, tape: Tape, config: PlanConfig, now: Quality, sizes: Ints) -> Better | None:
    """The least change of lanes, then of the block, that is good enough; None where nothing is to be changed, or can
    be."""
    batch, world = config.train.batch_size, config.cluster.world_size
    if (now.mixed and now.shuffled) or batch > tape.n_segments:
        return None
    lanes, block, found = tape.lanes, tape.shuffle_block, now
    for more in even_lanes(batch, world):
        if not found.mixed and lanes < more <= tape.n_segments:
            lanes, found = more, quality(source, tape.recut(more, block), batch, LOOKED)
    while not found.shuffled and lanes * block < tape.n_segments:
        block *= 2
        found = quality(source, tape.recut(lanes, block), batch, LOOKED)
    other = tape.recut(lanes, block)
    uses, _ = demand(other, batch, max(1, tape.n_segments // batch), world, config.cluster.ranks_per_node)
    at_once = int(most_at_once(per_node(uses, config.cluster.ranks_per_node), sizes).max())
    return Better(lanes=lanes, shuffle_block=block, quality=found, node_uses=at_once)
