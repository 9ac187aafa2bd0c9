"""Tables of what a reviewer asks for, in Markdown, and how they write numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from aar_dist.base.stats.ordering import AUROC
from aar_dist.evaluation.review.comparing import FEW, SAME

NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "mae": "MAE",
    "rmse": "RMSE",
    "r": "r",
    "r2": "R²",
    AUROC: "AUROC",
}
DASH = "–"


def tests_table(pairs: Sequence[Mapping[str, Any]], main: str) -> list[str]:
    """Of the main score: who is better, and how sure that is."""
    told = [pair for pair in pairs if pair["score"] == main and pair.get("verdict")]
    if not told:
        return []
    rows = [
        [
            f"{pair['a']} − {pair['b']}",
            difference(pair),
            p_text(pair["p"]),
            f"{p_text(pair['p_corrected'])} (of {pair['n_pairs']})",
            DASH if pair["wins"] is None else f"{pair['wins']} of {pair['n_subjects']}",
            pair["verdict"],
        ]
        for pair in told
    ]
    heads = ["", f"difference in {NAMES[main]}", "p", "corrected", "better on", "so the first is"]
    title = f"Compared on the same subjects ({told[0]['test']}; p corrected by Holm's method):"
    return ["", title, "", *table(heads, rows)]


def verdicts(results: Mapping[str, Any], main: str) -> list[str]:
    """What may be said of the study's own network, a line for each verdict."""
    planned = [pair for pair in results["comparisons"] if pair.get("planned") and pair["score"] == main]
    told: dict[str, list[str]] = {}
    for pair in planned:
        if pair["verdict"]:
            told.setdefault(pair["verdict"], []).append(f"{pair['b']} (p {p_text(pair['p_corrected'])})")
    links = {"better": "better than", "worse": "worse than", SAME: f"{SAME} from", FEW: f"{FEW} from"}
    return [f"{planned[0]['a']} by {NAMES[main]}: {links[word]} {', '.join(of)}" for word, of in told.items()]


def few_shot_table(results: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    rows = [
        [of["method"], f"{100 * of['fraction']:g} %", number(of["n_subjects"]).removesuffix(".000")]
        + [with_interval(of["scores"][n]) for n in names]
        for of in results.get("few_shot") or []
    ]
    heads = ["method", "of the subjects", "subjects", *(NAMES[n] for n in names)]
    return ["", "With few subjects to learn from, over the same test windows:", "", *table(heads, rows)] if rows else []


def sureness_table(results: Mapping[str, Any]) -> list[str]:
    """What probabilities are worth, before and after the temperature, and how many windows a threshold keeps."""
    told = [m for m in results["methods"] if m.get("calibration") and m.get("abstention")]
    if not told:
        return []
    wanted = [one["accuracy"] for one in told[0]["abstention"]["wanted"]]
    heads = ["method", "ECE", "NLL", "temperature", "ECE after", "NLL after", "AURC"]
    rows = [[m["name"], *_calibrated(m["calibration"]), *_kept(m["abstention"])] for m in told]
    for share in wanted:
        heads.append(f"answered for {100 * share:g} % right")
    title = (
        "Calibration and abstention; temperature and thresholds are those of each fold's validation subjects, and in "
        "brackets stands how many of the answered are right:"
    )
    return ["", title, "", *table(heads, rows)]


def _calibrated(told: Mapping[str, Any]) -> list[str]:
    before, after = told["before"], told["after"] or {"ece": None, "nll": {"value": None}}
    heat = (told["temperature"] or {}).get("median")
    return [number(v) for v in (before["ece"], before["nll"]["value"], heat, after["ece"], after["nll"]["value"])]


def _kept(told: Mapping[str, Any]) -> list[str]:
    chosen = [one["chosen"] for one in told["wanted"]]
    return [number(told["aurc"])] + [
        DASH if one is None else f"{number(one['coverage']['value'])} ({number(one['accuracy']['value'])})"
        for one in chosen
    ]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def with_interval(score: Mapping[str, Any]) -> str:
    if score["low"] is None:
        return number(score["value"])
    return f"{number(score['value'])} [{score['low']:.3f}, {score['high']:.3f}]"


def difference(pair: Mapping[str, Any]) -> str:
    if pair["difference"] is None:
        return DASH
    limits = f" [{pair['low']:+.3f}, {pair['high']:+.3f}]" if pair["low"] is not None else ""
    return f"{pair['difference']:+.3f}{limits}"


def p_text(p: float | None) -> str:
    """Never a row of zeros."""
    return DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
