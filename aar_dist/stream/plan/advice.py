"""What to change, in a line each: the key, to what, and what it would save."""

from collections.abc import Iterator

from aar_dist.base.cli import human_bytes
from aar_dist.stream.plan.config import PlanConfig
from aar_dist.stream.plan.model import Plan

NOTABLE = 0.01  # share of the time, of the bytes or of a batch from which something is worth a line
POOR = 1.5  # repeats, times those of an ideal shuffle


def advice(plan: Plan, config: PlanConfig) -> list[str]:
    """What would make the run better; one line of praise where there is nothing."""
    found = [*_lanes(plan, config), *_cache(plan, config), *_link(plan, config), *_shuffle(plan)]
    return found or ["nothing to change"]


def _lanes(plan: Plan, config: PlanConfig) -> Iterator[str]:
    if plan.batch_size > plan.segments:
        yield f"a batch of {plan.batch_size} is more than the epoch's {plan.segments} segments: lower batch_size"
        return
    if plan.world_size == 1:
        return
    even = [n for n in plan.even_lanes if n >= plan.lanes] or plan.even_lanes[-1:]
    if plan.lanes not in plan.even_lanes and even and even[0] <= plan.segments:
        change = "raise" if even[0] > plan.lanes else "set"
        reason = f"{plan.world_size} ranks share {plan.lanes} lanes, a shard is read by several of them"
        if plan.lanes > plan.world_size:
            reason = f"{plan.lanes} lanes fall unequally to {plan.world_size} ranks, those at the edges are read twice"
        yield f"{change} data.lanes to {even[0]}: {reason}"
    readers = plan.demand.readers_per_shard
    if config.cluster.nodes > 1 and readers > 1.5 and plan.n_shards < 4 * plan.lanes:
        yield (
            f"{plan.n_shards} shards for {plan.lanes} lanes: each is read by {readers:.1f} nodes in an epoch; shards "
            "built smaller (--shard_size) are read by fewer"
        )


def _cache(plan: Plan, config: PlanConfig) -> Iterator[str]:
    caching, capacity = plan.caching, config.cluster.cache_bytes
    if capacity is None:
        return
    if not caching.fits:
        yield (
            f"a cache of {human_bytes(capacity)} cannot hold what a node has in use at one time: it needs "
            f"{human_bytes(caching.least)} or more; or lower data.lanes or data.shuffle_block"
        )
        return
    again = sum(e.again.mean for e in caching.epochs)
    fetched = sum(e.fetched.mean for e in caching.epochs)
    if again > NOTABLE * fetched:
        yield (
            f"a cache of {human_bytes(caching.no_refetch)} a node would avoid {human_bytes(again)} fetched again in "
            f"{plan.epochs_played} epoch(s), and one of {human_bytes(plan.bytes)} all fetching after the first epochs"
        )


def _link(plan: Plan, config: PlanConfig) -> Iterator[str]:
    caching, speed = plan.caching, config.cluster.bytes_per_second
    step_s = config.cluster.step_s(plan.batch_size)
    if not speed or caching.break_even_step_s is None:
        return
    if step_s and caching.stall_share is not None and caching.stall_share > NOTABLE:
        need = caching.break_even_step_s * speed / step_s
        if need > speed:
            yield (
                f"the link of a node is too slow: {human_bytes(need)}/s keep up with steps of {step_s:g} s, "
                f"{human_bytes(speed)}/s are there; {100 * caching.stall_share:.0f} % of the time is waited"
            )
        else:
            yield (
                f"{100 * caching.stall_share:.0f} % of the time is waited, {caching.first_batch_s or 0:.0f} s of it "
                "for the first batch: fewer data.lanes or smaller shards begin sooner"
            )


def _shuffle(plan: Plan) -> Iterator[str]:
    q = plan.quality
    excess = q.same_chunk - q.same_chunk_ideal
    if excess > NOTABLE and q.same_chunk > POOR * q.same_chunk_ideal and q.spread < 1:
        block = plan.shuffle_block
        while block * plan.lanes < plan.segments and block < plan.shuffle_block * excess / NOTABLE:
            block *= 2
        yield (
            f"raise data.shuffle_block to {block}: {100 * q.same_chunk:.1f} % of a batch share their chunk with "
            f"another segment of it ({100 * q.same_chunk_ideal:.1f} % in an ideal shuffle)"
        )
    if len(plan.data_sets) > 1 and q.chi_square > POOR * max(q.chi_square_ideal, 0.1):
        yield (
            f"batches are further from the mixture than fair draws (chi-square {q.chi_square:.2f} a degree of freedom, "
            f"{q.chi_square_ideal:.2f} in an ideal shuffle): raise data.lanes"
        )
