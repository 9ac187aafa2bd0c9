"""What to change, in a line each: the key, to what, and what it would save."""

from collections.abc import Iterator

from aar_dist.base.cli import human_bytes
from aar_dist.stream.plan.better import Better, even_lanes
from aar_dist.stream.plan.config import PlanConfig
from aar_dist.stream.plan.model import Plan

NOTABLE = 0.01  # share of the time or of the bytes from which something is worth a line
MANY = 1.5  # nodes that read a shard


def advice(plan: Plan, config: PlanConfig, tried: Better | None) -> list[str]:
    """What would make the run better; one line of praise where there is nothing."""
    found = [*_shuffle(plan, tried), *_lanes(plan, config, tried), *_cache(plan, config), *_link(plan, config)]
    return found or ["nothing to change"]


def _shuffle(plan: Plan, tried: Better | None) -> Iterator[str]:
    if tried is None:
        return
    q, then = plan.quality, tried.quality
    changes = [
        f"data.{name} to {after}"
        for name, now, after in (
            ("lanes", plan.lanes, tried.lanes),
            ("shuffle_block", plan.shuffle_block, tried.shuffle_block),
        )
        if now != after
    ]
    gains = []
    if not q.mixed:
        gains.append(f"chi-square of the data sets' shares {q.chi_square:.2f} -> {then.chi_square:.2f}")
    if not q.shuffled:
        gains.append(f"same chunk in a batch {100 * q.same_chunk:.1f} % -> {100 * then.same_chunk:.1f} %")
    yield f"raise {' and '.join(changes)}: {', '.join(gains)}; a node has {human_bytes(tried.node_uses)} in use then"


def _lanes(plan: Plan, config: PlanConfig, tried: Better | None) -> Iterator[str]:
    if plan.batch_size > plan.segments:
        yield f"a batch of {plan.batch_size} is more than the epoch's {plan.segments} segments: lower batch_size"
        return
    lanes = tried.lanes if tried else plan.lanes
    even = even_lanes(plan.batch_size, plan.world_size)
    near = next((n for n in even if n >= lanes), even[-1])
    if config.cluster.nodes > 1 and lanes not in even and near <= plan.segments:
        reason = f"{plan.world_size} ranks share {lanes} lanes, a shard is read by several of them"
        if lanes > plan.world_size:
            reason = f"{lanes} lanes fall unequally to {plan.world_size} ranks, those at the edges are read twice"
        yield f"set data.lanes to {near}: {reason}"
    readers = plan.demand.readers_per_shard
    if config.cluster.nodes > 1 and readers > MANY and plan.n_shards < 4 * plan.lanes:
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
            room = ", the rest where an epoch begins; a larger cache fetches further ahead" if caching.evicted else ""
            yield (
                f"{100 * caching.stall_share:.0f} % of the time is waited, {caching.first_batch_s or 0:.1f} s of it "
                f"for the first batch{room}; fewer data.lanes or smaller shards begin sooner"
            )
