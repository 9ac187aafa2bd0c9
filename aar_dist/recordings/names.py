"""What names may be made of: they become names of files and tar members, and join one another in lists.

name -> what is wrong with it, or None
"""

import re
from collections.abc import Sequence

from aar_dist.base.storage import is_staging

_DATASET = re.compile(r"\w[\w. -]*")
_SENSOR = re.compile(r"\w[\w -]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def fault_of_dataset(name: str) -> str | None:
    """A data set names a folder and its shards."""
    if not _DATASET.fullmatch(name) or is_staging(name):
        return f"{name!r} cannot be part of a file name; use letters, digits, _, -, . and spaces"
    return None


def fault_of_sensors(names: Sequence[str]) -> str | None:
    """A sensor names a tar member ``<key>.<sensor>.npy``, on some disks without regard to upper and lower case."""
    seen: dict[str, str] = {}
    for name in names:
        if not _SENSOR.fullmatch(name):
            return f"sensor {name!r} cannot be part of a file name; use letters, digits, _, - and spaces"
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            return f"{other!r} and {name!r} differ in upper and lower case only; rename one of them"
    return None


def fault_of_axes(names: Sequence[str]) -> str | None:
    """The axes of a sensor are kept as one text, joined by commas."""
    odd = next((n for n in names if "," in n or not n.strip() or _CONTROL.search(n)), None)
    return None if odd is None else f"axis {odd!r} is empty or holds a comma or a line break; give it a plain name"


def fault_of_text(text: str) -> str | None:
    """Any other text stands in one line."""
    return f"{text!r} holds a line break or another control character" if _CONTROL.search(text) else None


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``_ds_10`` behind ``_ds_2``."""
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d+)", name)]
