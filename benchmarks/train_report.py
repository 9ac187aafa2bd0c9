"""Rates of training as ratios and as a table."""

from dataclasses import dataclass

DATA = ("100 Hz", "mixed", "25 Hz")
FLOORS = {
    "shipped_100hz": 1.6, "shipped_mixed": 2.5, "shipped_25hz": 4.5,
    "plain_100hz": 0.95, "plain_mixed": 1.4, "plain_25hz": 2.7,
    "patchtst": 1.0, "deepspeed_overhead": 0.1, "ranks_2": 1.7, "loader_headroom": 10.0,
}  # fmt: skip
"""Key -> what is asked; of ``deepspeed_overhead`` the most, of the others the least."""


@dataclass(frozen=True)
class Rates:
    """What was measured."""

    alone: dict[str, float]
    """Trainer -> median of segments per CPU-second, on one core."""
    ranks: dict[int, float]
    """Ranks -> best segments per second, a core each."""


def shipped(data: str) -> str:
    """Ours with its defaults."""
    return f"ours {data}, as it comes"


def like(data: str) -> str:
    """Ours as the plain loop is."""
    return f"ours {data}, fp32, dropout 0"


def ratios(rates: Rates) -> dict[str, float | None]:
    """Every key; None where the peer was not there."""
    alone, found = rates.alone, {}
    for kind, of, dropout in (("shipped", shipped, 0.1), ("plain", like, 0)):
        for data in DATA:
            key = f"{kind}_{data.replace(' ', '').lower()}"
            found[key] = alone[of(data)] / alone[f"plain {data}, dropout {dropout:g}"]
    peer = alone.get("PatchTST 100 Hz, dropout 0")
    found["patchtst"] = alone[like("100 Hz")] / peer if peer else None
    found["deepspeed_overhead"] = alone["bare loop d 256"] / alone["DeepSpeed d 256"] - 1
    found["ranks_2"] = rates.ranks[2] / rates.ranks[1]
    fastest = max(alone[kind(data)] for data in DATA for kind in (shipped, like))
    found["loader_headroom"] = min(alone[f"loader {data}"] for data in DATA) / fastest
    return {key: None if found[key] is None else round(found[key], 3) for key in FLOORS}


def table(rates: Rates) -> str:
    """Markdown: the ratios beside what is asked, then the rates."""
    lines = ["| key | measured | asked |", "|---|---|---|"]
    for key, ratio in ratios(rates).items():
        asked = f"at {'most' if key == 'deepspeed_overhead' else 'least'} {FLOORS[key]:g}"
        lines.append(f"| `{key}` | {'–' if ratio is None else f'{ratio:.2f}'} | {asked} |")
    lines += ["", "| trainer | segments/s |", "|---|---|"]
    lines += [f"| {name} | {rate:,.0f} |" for name, rate in rates.alone.items()]
    lines += [
        f"| ours 100 Hz, fp32, dropout 0, {n} rank(s) on {n} core(s), best | {r:,.0f} |" for n, r in rates.ranks.items()
    ]
    return "\n".join(lines)
