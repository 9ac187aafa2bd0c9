"""Names and numbers in a sentence."""

import difflib
from collections.abc import Collection, Sequence


def some(names: Sequence[str], most: int = 6) -> str:
    """``a, b, c``; beyond ``most`` of them how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def many(n: int, what: str) -> str:
    """``1 epoch``, ``2 epochs``."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def meant(name: str, names: Collection[str]) -> str:
    """What is to be said of a name that is none of these: ``did you mean b?``, or which there are."""
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]}?" if near else f"there are {some(sorted(names))}"
