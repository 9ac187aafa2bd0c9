"""Names in a sentence."""

from collections.abc import Sequence


def some(names: Sequence[str], most: int = 6) -> str:
    """``a, b, c``; beyond ``most`` of them how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
