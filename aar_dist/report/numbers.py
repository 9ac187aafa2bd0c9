"""How the page writes numbers, and which scores there are."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

DASH = "–"


@dataclass(frozen=True)
class Measure:
    """A score."""

    key: str
    name: str
    higher_is_better: bool = True

    def better(self, a: float, b: float) -> bool:
        """True if a is better than b."""
        return a > b if self.higher_is_better else a < b


MEASURES = (
    Measure("macro_f1", "macro F1"),
    Measure("balanced_accuracy", "balanced accuracy"),
    Measure("accuracy", "accuracy"),
    Measure("auroc", "AUROC"),
    Measure("mae", "mean absolute error", higher_is_better=False),
    Measure("rmse", "root mean square error", higher_is_better=False),
    Measure("r", "correlation r"),
    Measure("r2", "R²"),
)


def measures_of(keys: Collection[str]) -> list[Measure]:
    """The scores of these keys, the one that the headline goes by first."""
    return [m for m in MEASURES if m.key in keys]


def known(value: Any) -> TypeGuard[float]:
    """True for a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any) -> str:
    """Three decimals below 1, fewer above; a dash where there is none."""
    if not known(value):
        return DASH
    digits = 3 if abs(value) < 1.0005 else 2 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}".replace("-", "−")


def p_value(value: Any) -> str:
    """``p = 0.012``, never a row of zeros."""
    if not known(value):
        return "no test"
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}" if value >= 0.01 else f"p = {value:.3f}"


def signed(value: float) -> str:
    """With its sign in front."""
    return f"{'+' if value > 0 else ''}{number(value)}"


def interval(score: Mapping[str, Any]) -> str:
    """``0.62 to 0.78``, or nothing where there is no interval."""
    low, high = score.get("low"), score.get("high")
    return f"{number(low)} to {number(high)}" if known(low) and known(high) else ""


def with_interval(score: Mapping[str, Any]) -> str:
    """``0.712 (95 % interval 0.620 to 0.780)``."""
    between = interval(score)
    told = f"95\u00a0% interval {between}" if between else "no interval"
    return f"{number(score.get('value'))} ({told})"


def count(n: int, one: str, many: str | None = None) -> str:
    """``1 subject``, ``3 subjects``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(names: Sequence[str], most: int = 6) -> str:
    """``a, b and c``; beyond ``most`` of them how many more."""
    names = [*names[:most], f"{len(names) - most} more"] if len(names) > most else list(names)
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
