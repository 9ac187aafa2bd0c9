"""How often a 95 % interval over subjects holds the truth, by the way it is made.

    python benchmarks/interval_coverage.py              # some minutes; prints a Markdown table
    python benchmarks/interval_coverage.py --herds 2000 --json coverage.json

Herds are simulated whose truth is known from 200,000 subjects: subjects of unlike skill, of like or unlike size,
classes that some hardly show. From each, a few subjects are tested; the interval that they give holds the truth or not.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from aar_dist.base.metrics import SCORES, scores_of
from aar_dist.base.stats.intervals import ERROR, LEVEL, PLAIN, SHARE, Scale, interval
from aar_dist.base.stats.tallies import Floats, Tallies, drawn, times_drawn, without_each

MANY = 200_000
SUBJECTS = (5, 10, 20, 40)
CONFUSED = np.array([[0.0, 0.5, 0.3, 0.2], [0.5, 0.0, 0.3, 0.2], [0.5, 0.3, 0.0, 0.2], [0.5, 0.3, 0.2, 0.0]])


def hits(rng: np.random.Generator, n: int, a: float, b: float, spread: float) -> Floats:
    """(n, 2, 2) confusions of one true class: accuracy alone."""
    windows = np.ceil(60 * rng.lognormal(0, spread, n)).astype(int)
    right = rng.binomial(windows, rng.beta(a, b, n))
    sums = np.zeros((n, 2, 2))
    sums[:, 0] = np.stack([right, windows - right], 1)
    return sums


def classes(rng: np.random.Generator, n: int, *methods: float) -> Floats:
    """(n, 4 · methods, 4) confusions of methods that are worse by so much, one below the other; a class is rare."""
    share, skill = rng.dirichlet([3, 2, 1, 0.3], n), rng.beta(6, 3, n)
    of = rng.poisson(rng.lognormal(4.5, 0.6, n)[:, None] * share)
    blocks = []
    for worse in methods:
        own = np.clip(skill + rng.normal(0, 0.08, n) - worse, 0.02, 0.99)
        right = rng.binomial(of, own[:, None] * [1, 0.9, 0.8, 0.6])
        wrong = np.stack([rng.multinomial((of - right)[:, k], CONFUSED[k]) for k in range(4)], 1)
        blocks.append(wrong + right[:, :, None] * np.eye(4))
    return np.concatenate(blocks, 1)


def errors(rng: np.random.Generator, n: int) -> Floats:
    """(n, 2) sums of absolute errors, and windows."""
    windows = np.ceil(60 * rng.lognormal(0, 0.7, n))
    return np.stack([windows * rng.gamma(4, 1, n), windows], 1)


def score_of(kind: str) -> Callable[[Floats], Mapping[str, Floats]]:
    """Sums -> the score of this kind."""

    def macro(of: Floats) -> Floats:
        return scores_of(of)[SCORES[2]]

    return {
        "accuracy": lambda of: {"score": scores_of(of)["accuracy"]},
        "macro F1": lambda of: {"score": macro(of)},
        "difference": lambda of: {"score": macro(of[..., :4, :]) - macro(of[..., 4:, :])},
        "error": lambda of: {"score": of[..., 0] / of[..., 1]},
    }[kind]


HERDS: Mapping[str, tuple[str, Scale, Callable[[np.random.Generator, int], Floats]]] = {
    "accuracy 0.70": ("accuracy", SHARE, lambda rng, n: hits(rng, n, 7, 3, 0.0)),
    "accuracy 0.95": ("accuracy", SHARE, lambda rng, n: hits(rng, n, 19, 1, 0.0)),
    "accuracy 0.70, unlike sizes": ("accuracy", SHARE, lambda rng, n: hits(rng, n, 7, 3, 1.0)),
    "macro F1, a rare class": ("macro F1", SHARE, lambda rng, n: classes(rng, n, 0.0)),
    "difference of two macro F1": ("difference", PLAIN, lambda rng, n: classes(rng, n, 0.0, 0.05)),
    "mean absolute error": ("error", ERROR, errors),
}


def quantiles(value: float, draws: Floats, tallies: Tallies) -> tuple[float, float]:
    """Of the draws, as they are."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bca(value: float, draws: Floats, tallies: Tallies) -> tuple[float, float]:
    """Quantiles corrected for bias and acceleration (Efron 1987)."""
    below = np.clip(np.mean(draws < value) + np.mean(draws == value) / 2, 1e-3, 1 - 1e-3)
    left = without_each(tallies)["score"]
    d = left.mean() - left
    bend, bias = (d**3).sum() / (6 * (d**2).sum() ** 1.5 + 1e-300), stats.norm.ppf(below)
    at = [bias + stats.norm.ppf(q) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
    low, high = np.quantile(draws, [stats.norm.cdf(bias + u / (1 - bend * u)) for u in at])
    return float(low), float(high)


def bootstrap_t(value: float, draws: Floats, tallies: Tallies) -> tuple[float, float]:
    """Quantiles of the draws' own t, each with the jackknife's error of its subjects."""
    n = len(tallies.subjects)
    times = times_drawn(n, len(draws), 578)
    fewer = times[:, None, :] - np.eye(n)
    left = tallies.weighted(np.maximum(fewer, 0))["score"]
    mean = (times * left).sum(1) / n
    error = np.sqrt((n - 1) / n * (times * (left - mean[:, None]) ** 2).sum(1))
    t = ((draws - value) / np.maximum(error, 1e-12))[error > 1e-9]
    alone = without_each(tallies)["score"]
    scale = np.sqrt((n - 1) / n * ((alone - alone.mean()) ** 2).sum())
    high, low = np.quantile(t, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(value - low * scale), float(value - high * scale)


WAYS = {"quantiles": quantiles, "BCa": bca, "bootstrap-t": bootstrap_t}


def measured(name: str, n_subjects: int, herds: int, draws: int) -> dict[str, Any]:
    """Share of the herds whose interval holds the truth, and its median width, by way; ``ours`` is what is used."""
    kind, scale, make = HERDS[name]
    rng, score = np.random.default_rng([n_subjects, len(name)]), score_of(kind)
    truth = float(score(make(rng, MANY).sum(0))["score"])
    held: dict[str, list[bool]] = {}
    width: dict[str, list[float]] = {}
    for _ in range(herds):
        tallies = Tallies(tuple(map(str, range(n_subjects))), make(rng, n_subjects), score)
        value, of = float(tallies.whole["score"]), drawn(tallies, draws)["score"]
        found = {way: made(value, of, tallies) for way, made in WAYS.items()}
        ours = interval(value, of, n_subjects, scale)
        found["ours"] = (float(ours["low"] or 0.0), float(ours["high"] or 0.0))
        for way, (low, high) in found.items():
            held.setdefault(way, []).append(low <= truth <= high)
            width.setdefault(way, []).append(high - low)
    return {way: {"held": float(np.mean(held[way])), "width": float(np.median(width[way]))} for way in held}


def main() -> None:
    """Measure all of them and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--herds", type=int, default=400, help="simulated for each line (%(default)s)")
    parser.add_argument("--draws", type=int, default=500, help="of subjects for each herd (%(default)s)")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    print(f"| score | subjects | {' | '.join([*WAYS, 'ours'])} |\n|---|---{'|---' * (len(WAYS) + 1)}|")
    for name in HERDS:
        for n in SUBJECTS:
            told = found[f"{name}, {n}"] = measured(name, n, args.herds, args.draws)
            cells = [f"{100 * of['held']:.1f} % ({of['width']:.3f})" for of in told.values()]
            print(f"| {name} | {n} | {' | '.join(cells)} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
