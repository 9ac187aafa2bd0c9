"""Where DeepSpeed puts the numbers of each parameter. Nothing here knows DeepSpeed or reads a file.

ZeRO 0      a tensor for each parameter
ZeRO 1, 2   | a a a a b|b b c c c| . |    end to end, the line cut in equal lengths, one for each rank
ZeRO 3      | a a b c c|a a b c .|        each parameter cut in equal shares, a rank's shares end to end
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """A stretch of one flattened parameter, and where it lies."""

    name: str
    start: int
    """First number, counted in the parameter."""
    count: int
    group: int
    """Which of a rank's tensors."""
    offset: int
    """First number, counted there."""

    @property
    def stop(self) -> int:
        """First number after it, counted in the parameter."""
        return self.start + self.count


def whole(sizes: Mapping[str, int]) -> list[Piece]:
    """A tensor for each parameter.

    Args:
        sizes: Parameter -> how many numbers it has, in the optimizer's order (here and below).
    """
    return [Piece(name, 0, size, group, 0) for group, (name, size) in enumerate(sizes.items())]


def stretches(sizes: Mapping[str, int], begins: Iterable[int], length: int, rank: int, group: int) -> Iterator[Piece]:
    """What a rank has of parameters on one line.

    Args:
        begins: Where on the line each parameter begins.
        length: Of each rank's part of the line.
    """
    first = rank * length
    for (name, size), begin in zip(sizes.items(), begins, strict=True):
        low, high = max(begin, first), min(begin + size, first + length)
        if low < high:
            yield Piece(name, low - begin, high - low, group, low - first)


def shares(sizes: Mapping[str, int], ranks: int, rank: int, group: int) -> Iterator[Piece]:
    """What a rank has where every parameter is cut in an equal share for each; the last ones may be short."""
    offset = 0
    for name, size in sizes.items():
        share = -(-size // ranks)
        start = rank * share
        if start < size:
            yield Piece(name, start, min(share, size - start), group, offset)
        offset += share
