"""The plan of a run: what it reads, from when to when, and what that means.

PlanConfig -> open_source, open_tape (the code that trains) -> demand, caches, quality -> Plan
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aar_dist.stream.columns import Floats
from aar_dist.stream.loader import open_tape
from aar_dist.stream.plan.advice import advice
from aar_dist.stream.plan.better import better, even_lanes
from aar_dist.stream.plan.cache_model import Fetches, fetches, least_without_refetch
from aar_dist.stream.plan.config import PlanConfig, near_batches
from aar_dist.stream.plan.demand import Uses, demand, merged, most_at_once, per_node, spells
from aar_dist.stream.plan.model import Caching, Demand, Epoch, Plan, Spread
from aar_dist.stream.plan.quality import quality
from aar_dist.stream.source import open_source
from aar_dist.stream.tape import Ints, Tape

MOST_EPOCHS = 3
"""Epochs that are played; those after are like the last."""
BUSIEST = 8  # nodes by which the smallest cache without second fetches is sought
BINS = 100


def make_plan(config: PlanConfig) -> Plan:
    """Open the shard sets as a training run does, and play its reading."""
    data, cluster, batch = config.data, config.cluster, config.train.batch_size
    source = open_source(data, "train")
    tape = open_tape(source, data, "train")
    played = min(config.train.epochs, MOST_EPOCHS)
    n_steps = max(1, played * tape.n_segments // batch)
    sizes = np.array([shard.size for shard in source.shards], np.int64)
    uses, not_exact = demand(tape, batch, n_steps, cluster.world_size, cluster.ranks_per_node)
    nodes = per_node(uses, cluster.ranks_per_node)
    if played < config.train.epochs:
        not_exact.append(f"{played} of {config.train.epochs} epochs were played; those after are like the last")
    found, run = _caching(config, tape, nodes, sizes, n_steps)
    looked = quality(source, tape, batch)
    if looked.batches < tape.n_segments / batch:
        not_exact.append(f"shuffle quality: {looked.batches} batches of the first epoch")
    plan = Plan(
        shards=data.shards,
        identity=source.identity,
        world_size=cluster.world_size,
        batch_size=batch,
        segments_per_rank=batch // cluster.world_size,
        lanes=tape.lanes,
        shuffle_block=tape.shuffle_block,
        segments=tape.n_segments,
        data_sets=dict(zip(source.datasets, tape.totals, strict=True)),
        chunks=len(source.items.dataset),
        n_shards=len(source.shards),
        bytes=int(sizes.sum()),
        steps_per_epoch=round(tape.n_segments / batch, 2),
        steps=max(1, config.train.epochs * tape.n_segments // batch),
        epochs=config.train.epochs,
        epochs_played=played,
        demand=_demand(tape, uses, nodes, sizes, n_steps * batch),
        caching=found,
        quality=looked,
        batch_sizes=near_batches(batch, cluster.world_size),
        even_lanes=_nearest(even_lanes(batch, cluster.world_size), tape.lanes),
        not_exact=not_exact,
        timeline=_timeline(run, sizes, n_steps, len(np.unique(nodes.unit))),
        advice=[],
    )
    plan.advice.extend(advice(plan, config, better(source, tape, config, looked, sizes)))
    return plan


def _nearest(numbers: list[int], to: int, n: int = 3) -> list[int]:
    return sorted(sorted(numbers, key=lambda number: abs(number - to))[:n])


def _demand(tape: Tape, ranks: Uses, nodes: Uses, sizes: Ints, horizon: int) -> Demand:
    epochs = max(1.0, horizon / tape.n_segments)
    of_rank, of_node = (_read(uses, tape.lanes) for uses in (ranks, nodes))
    readers = len(of_node.unit) / max(1, len(np.unique(of_node.lane * len(sizes) + of_node.shard)))
    return Demand(
        shards_per_rank=Spread.of(_per_unit(of_rank, np.ones(len(sizes))) / epochs),
        shards_per_node=Spread.of(_per_unit(of_node, np.ones(len(sizes))) / epochs),
        bytes_per_node=Spread.of(_per_unit(of_node, sizes) / epochs),
        readers_per_shard=round(readers, 3),
        rank_maps=Spread.of(most_at_once(ranks, sizes)),
        node_uses=Spread.of(most_at_once(nodes, sizes)),
    )


def _read(uses: Uses, lanes: int) -> Uses:
    """Different (unit, shard) of each epoch; ``lane`` holds the epoch."""
    return merged([replace(uses, lane=uses.lane // lanes)])


def _per_unit(uses: Uses, weight: NDArray[np.number]) -> Floats:
    """Sum of ``weight`` (n_shards,) over the uses of each unit that occurs."""
    totals: Floats = np.asarray(np.bincount(uses.unit, weight[uses.shard]), np.float64)
    return totals[np.unique(uses.unit)]


def _caching(config: PlanConfig, tape: Tape, nodes: Uses, sizes: Ints, n_steps: int) -> tuple[Caching, Fetches]:
    cluster, batch = config.cluster, config.train.batch_size
    capacity, speed, step_s = cluster.cache_bytes, cluster.bytes_per_second, cluster.step_s(batch)
    run = fetches(nodes, sizes, capacity=capacity, bytes_per_s=speed, step_s=step_s)
    spell = spells(nodes)
    pairs = np.unique(spell.unit * len(sizes) + spell.shard)
    held = np.bincount(pairs // len(sizes), sizes[pairs % len(sizes)])
    busiest = nodes.of(np.argsort(-held)[:BUSIEST])
    least = int(most_at_once(nodes, sizes).max())
    epochs = _epochs(run, sizes, tape, batch, np.unique(nodes.unit), n_steps)
    per_step = max((e.fetched.most for e in epochs), default=0.0) / min(n_steps, max(1, tape.n_segments // batch))
    first = spell.first == 0
    begin = np.bincount(spell.unit[first], sizes[spell.shard[first]]).max(initial=0)
    return Caching(
        fits=not run.short,
        least=least,
        no_refetch=least_without_refetch(busiest, sizes, least, int(held.max())),
        evicted=run.evicted,
        epochs=epochs,
        first_batch_s=float(begin) / speed if speed else None,
        stall_s=run.stall_s,
        stall_share=None if run.stall_s is None or not step_s else run.stall_s / (run.stall_s + n_steps * step_s),
        break_even_step_s=per_step / speed if speed else None,
    ), run


def _epochs(run: Fetches, sizes: Ints, tape: Tape, batch: int, nodes: Ints, n_steps: int) -> tuple[Epoch, ...]:
    epoch, size = run.step * batch // tape.n_segments, sizes[run.shard]
    found = []
    for e in range(-(-n_steps * batch // tape.n_segments)):
        here = epoch == e
        total, again = (
            np.bincount(run.node[at], size[at], int(nodes.max()) + 1)[nodes] for at in (here, here & run.again)
        )
        found.append(Epoch(fetched=Spread.of(total), again=Spread.of(again)))
    return tuple(found)


def _timeline(run: Fetches, sizes: Ints, n_steps: int, n_nodes: int) -> dict[str, list[float]]:
    """What nodes have fetched, and what their caches hold, at the end of each of some bins of steps."""
    edges = np.unique(np.linspace(0, n_steps - 1, BINS).astype(np.int64))
    fetched, level = np.zeros((n_nodes, len(edges))), np.zeros((n_nodes, len(edges)))
    for i, node in enumerate(np.unique(run.node).tolist()):
        at = run.node == node
        done = np.searchsorted(run.step[at], edges, side="right")
        fetched[i] = np.append(0, np.cumsum(sizes[run.shard[at]]))[done]
        level[i] = np.append(0, run.level[at])[done]
    return {
        "step": edges.tolist(),
        "fetched_mean": fetched.mean(0).tolist(),
        "fetched_most": fetched.max(0).tolist(),
        "cached_mean": level.mean(0).tolist(),
        "cached_most": level.max(0).tolist(),
    }
