"""What a rank tells the others of itself before anything else.

this process -> Facts -> JSON -> rank 0 -> complaints
"""

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from aar_dist.base.code import code_hash
from aar_dist.training import environment
from aar_dist.training.meeting.machine import machine_problems
from aar_dist.training.ranks import Ranks

PACKAGES = ("deepspeed", "numpy", "pyarrow")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One rank. What is compared is equal on every rank of a sound launch."""

    rank: int
    world_size: int
    host: str
    pid: int
    code: str
    """Hash of the package's sources."""
    versions: dict[str, str]
    device: str
    """What it computes on: ``cpu``, or the name of the GPU."""
    problems: tuple[str, ...] = ()
    """What is wrong with its machine."""

    @property
    def who(self) -> str:
        """For a message."""
        return f"rank {self.rank} on {self.host}"

    def to_json(self) -> str:
        """For the store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Facts":
        """What another rank put there."""
        said = json.loads(text)
        return cls(**{**said, "problems": tuple(said["problems"])})


def facts_of(ranks: Ranks) -> Facts:
    """This process."""
    return Facts(
        rank=ranks.rank,
        world_size=ranks.world_size,
        host=platform.node(),
        pid=os.getpid(),
        code=code_hash(),
        versions=versions(),
        device=device_name(ranks.local_rank),
        problems=tuple(machine_problems(ranks)),
    )


def versions() -> dict[str, str]:
    """Package -> version, of all that must be the same on every host."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    if torch.version.cuda and torch.cuda.is_available():
        found |= {"cuda": torch.version.cuda, "nccl": ".".join(map(str, torch.cuda.nccl.version()))}  # type: ignore[no-untyped-call]
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def device_name(local_rank: int) -> str:
    """What a rank computes on."""
    if environment.on_cpu():
        return "cpu"
    count = torch.cuda.device_count()
    return torch.cuda.get_device_name(local_rank) if local_rank < count else f"GPU {local_rank} of {count}"
