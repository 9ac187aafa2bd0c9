"""Small command lines: argparse whose errors are one line, with the nearest flag that exists."""

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import NoReturn

from aar_dist.base.errors import ConfigError

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises :class:`ConfigError` instead of printing its usage."""

    def __init__(self, description: str | None = None, **kwargs: object) -> None:
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,  # type: ignore[arg-type]
        )

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (--[\w.-]+)", message)
        if unknown:
            flags = [f for action in self._actions for f in action.option_strings if f.startswith("--")]
            near = difflib.get_close_matches(unknown[1], flags, n=1)
            message = f"{unknown[1]}: no such flag" + (f"; did you mean {near[0]}?" if near else "")
        raise ConfigError(f"{message} (see {self.prog} --help)")


def joined(parser: Parser, argv: Sequence[str]) -> list[str]:
    """The arguments with ``--key value`` of a configuration in one piece, so that no value is taken for the path."""
    own = {option for action in parser._actions for option in action.option_strings}
    joined: list[str] = []
    open_key = False
    for argument in argv:
        if open_key and not argument.startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
        open_key = argument.startswith("--") and "=" not in argument and argument not in own
    return joined


def size_in_bytes(text: str) -> int:
    """Bytes of a size such as 500000, 64MB or 2GiB."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, expected a number such as 64MB or 2GiB")
    return int(float(match[1]) * UNITS[match[2] or ""])


def human_bytes(n: float) -> str:
    """Bytes in the largest decimal unit that leaves a figure before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"
