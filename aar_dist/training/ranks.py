"""What all ranks decide together.

    a flag, a number or an object on one rank  ->  the same answer on every rank

Works on torch.distributed alone, and with one process without a process group.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from aar_dist.base.errors import AarError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among all."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int

    @classmethod
    def from_environment(cls) -> "Ranks":
        """What the launcher told this process; alone if it was started without one."""

        def read(name: str, default: int) -> int:
            return int(os.environ.get(name, default))

        world = read("WORLD_SIZE", 1)
        local_world = read("LOCAL_WORLD_SIZE", read("LOCAL_SIZE", world))
        return cls(read("RANK", 0), world, read("LOCAL_RANK", 0), local_world)

    @property
    def main(self) -> bool:
        """True on the rank that speaks and writes."""
        return self.rank == 0


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _device() -> torch.device:
    """Where the process group reduces."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def any_rank(flag: bool) -> bool:
    """True on every rank if it is true on one."""
    if not _together():
        return flag
    value = torch.tensor([int(flag)], dtype=torch.int32, device=_device())
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def max_ranks(*values: float) -> list[float]:
    """The largest of each value over all ranks, exact for integers up to 2^53."""
    if not _together():
        return list(values)
    largest = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    found: list[float] = largest.tolist()
    return found


def sum_ranks(values: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all ranks, on the CPU."""
    if not _together():
        return values.cpu()
    total = values.detach().to(_device(), copy=True)
    dist.all_reduce(total)
    return total.cpu()


def mean_ranks(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all ranks, on the CPU, in float32."""
    return sum_ranks(values.float()) / (dist.get_world_size() if _together() else 1)


def from_main(make: Callable[[], T]) -> T:
    """What ``make`` returns on rank 0, on every rank. A user error there is raised on every rank."""
    if not _together():
        return make()
    said: list[T | AarError | None] = [None]
    if dist.get_rank() == 0:
        try:
            said[0] = make()
        except AarError as error:
            said[0] = error
    dist.broadcast_object_list(said, src=0, device=_device())
    answer = said[0]
    if isinstance(answer, AarError):
        raise answer
    return answer  # type: ignore[return-value]


def to_main(value: T) -> list[T]:
    """Every rank's value, in their order, on rank 0; nothing elsewhere. For plain objects, now and then."""
    if not _together():
        return [value]
    main = dist.get_rank() == 0
    values: list[T | None] | None = [None] * dist.get_world_size() if main else None
    dist.gather_object(value, values)
    return values or []  # type: ignore[return-value]


def to_all(value: T) -> list[T]:
    """Every rank's value, in their order, on every rank. For small plain objects, now and then."""
    if not _together():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def barrier() -> None:
    """Wait until every rank is here."""
    if _together():
        dist.barrier()


def free_port() -> int:
    """A port for a launch of its own on this machine."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
    return port
