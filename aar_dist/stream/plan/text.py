"""A plan as a page for the terminal."""

from rich.console import Console
from rich.table import Table

from aar_dist.base.cli import human_bytes
from aar_dist.stream.plan.config import PlanConfig
from aar_dist.stream.plan.model import Plan, Spread

MOST_DATA_SETS, MOST_EPOCHS = 8, 3


def render(plan: Plan, config: PlanConfig) -> str:
    """The plan as text."""
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    cluster = config.cluster
    title = f"{', '.join(plan.shards)}  ({plan.identity[:12]})"
    console.print(f"{title}\n", highlight=False, soft_wrap=True)
    many = f"{cluster.nodes:,} nodes x {cluster.ranks_per_node} ranks = {plan.world_size:,} ranks"
    _section(console, "run", [
        ("cluster", many),
        ("data", f"{plan.chunks:,} chunks in {plan.n_shards:,} shards, {human_bytes(plan.bytes)}"),
        ("epoch", f"{plan.segments:,} segments = {plan.steps_per_epoch:,.1f} steps of {plan.batch_size:,}"),
        ("run", f"{plan.epochs:,} epoch(s) = {plan.steps:,} steps; {plan.segments_per_rank:,} segments a rank a step"),
        ("batch sizes that fit", ", ".join(f"{n:,}" for n in plan.batch_sizes)),
        ("lanes that fit evenly", f"{', '.join(f'{n:,}' for n in plan.even_lanes)} (now {plan.lanes:,})"),
    ])  # fmt: skip
    demand = plan.demand
    _section(console, "reading, an epoch", [
        ("shards a rank reads", _spread(demand.shards_per_rank)),
        ("shards a node reads", _spread(demand.shards_per_node)),
        ("bytes a node reads", _spread(demand.bytes_per_node, unit=True)),
        ("nodes that read a shard", f"{demand.readers_per_shard:.2f}"),
        ("in use at once by a rank", _spread(demand.rank_maps, unit=True)),
        ("in use at once by a node", f"{_spread(demand.node_uses, unit=True)}: the least cache"),
    ])  # fmt: skip
    _section(console, "cache and link", _caching(plan, config))
    q = plan.quality
    _section(console, "shuffle (beside it an ideal one)", [
        ("data sets: chi-square", f"{q.chi_square:.3f}  ({q.chi_square_ideal:.3f}) a degree of freedom"),
        ("largest error of a share", f"{100 * q.worst_share_error:.2f} % of a batch"),
        ("same recording in a batch", f"{100 * q.same_recording:.2f} %  ({100 * q.same_recording_ideal:.2f} %)"),
        ("same chunk in a batch", f"{100 * q.same_chunk:.2f} %  ({100 * q.same_chunk_ideal:.2f} %)"),
        ("mixed at one time", f"{100 * q.spread:.2f} % of the epoch: {q.chunks_at_once:,.0f} chunks for "
                              f"{q.spread_steps:,.1f} steps"),
    ])  # fmt: skip
    _data_sets(console, plan)
    for line in plan.advice:
        console.print(f"→ {line}", highlight=False, soft_wrap=True)
    for line in plan.not_exact:
        console.print(f"not exact: {line}", highlight=False, soft_wrap=True)
    return console.export_text()


def _caching(plan: Plan, config: PlanConfig) -> list[tuple[str, str]]:
    caching, cluster = plan.caching, config.cluster
    cache = "room enough" if cluster.cache_bytes is None else human_bytes(cluster.cache_bytes)
    rows = [("cache of a node", f"{cache}; without second fetches {human_bytes(caching.no_refetch)}")]
    if not caching.fits:
        return [*rows, ("", "does not hold what is in use at one time: nothing was played")]
    for number, epoch in enumerate(caching.epochs[:MOST_EPOCHS]):
        again = f", of it again {human_bytes(epoch.again.mean)}" if epoch.again.most else ""
        rows.append((f"fetched in epoch {number}", f"{_spread(epoch.fetched, unit=True)} a node{again}"))
    if later := caching.epochs[MOST_EPOCHS:]:  # of a batch that holds many epochs
        total = sum(epoch.fetched.mean for epoch in later)
        rows.append((f"in the {len(later)} after these", f"{human_bytes(total)} a node"))
    rows.append(("shards that gave way", f"{caching.evicted:,}"))
    if caching.first_batch_s is not None:
        rows.append(("first batch after", f"{caching.first_batch_s:,.1f} s"))
    if caching.break_even_step_s is not None:
        rows.append(("link busy all the time", f"at steps of {caching.break_even_step_s:.3g} s"))
    if caching.stall_s is not None and caching.stall_share is not None:
        rows.append(("waited for data", f"{caching.stall_s:,.1f} s, {100 * caching.stall_share:.1f} % of the time"))
    elif cluster.bytes_per_second:
        rows.append(("waited for data", "unknown: tell --step_seconds or --segments_per_second"))
    return rows


def _data_sets(console: Console, plan: Plan) -> None:
    largest = sorted(plan.data_sets.items(), key=lambda item: -item[1])
    rows = [(name, f"{n:,}  {100 * n / plan.segments:.1f} %") for name, n in largest[:MOST_DATA_SETS]]
    if rest := largest[MOST_DATA_SETS:]:
        total = sum(n for _, n in rest)
        rows.append((f"{len(rest)} others", f"{total:,}  {100 * total / plan.segments:.1f} %"))
    _section(console, "segments of an epoch", rows)


def _section(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(min_width=28)
    table.add_column()
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


def _spread(spread: Spread, *, unit: bool = False) -> str:
    """Mean, and least to most where they differ."""
    told = [
        human_bytes(v) if unit else f"{v:,.1f}".removesuffix(".0") for v in (spread.least, spread.mean, spread.most)
    ]
    return told[1] if told[0] == told[2] else f"{told[1]}  ({told[0]} to {told[2]})"
