"""Names and numbers in a sentence."""

from collections.abc import Sequence


def some(names: Sequence[str], most: int = 6) -> str:
    """``a, b, c``; beyond ``most`` of them how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def many(n: int, what: str) -> str:
    """``1 epoch``, ``2 epochs``."""
    return f"{n:,} {what}{'s' * (n != 1)}"
