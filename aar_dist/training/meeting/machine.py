"""What must be so on every machine of a launch, whatever the others are like."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from aar_dist.base.cli import human_bytes
from aar_dist.training import environment
from aar_dist.training.ranks import Ranks

SHM = Path("/dev/shm")
OF_THIS_MACHINE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "ramfs", "f2fs", "squashfs")
"""File systems of one machine alone."""
ALL_REDUCE_BUFFER = 70_000_000
"""Bytes that DeepSpeed's all-reduce on a CPU takes of /dev/shm for each rank of a machine."""


def machine_problems(ranks: Ranks) -> Iterator[str]:
    """What is wrong with this machine, told by the first of its ranks, and with this rank's own device."""
    if ranks.local_rank == 0:
        yield from shm_problem(ranks.local_world_size)
    if not environment.on_cpu() and ranks.local_rank >= torch.cuda.device_count():
        yield (
            f"local rank {ranks.local_rank} has no GPU, there are {torch.cuda.device_count()}; lower slots= in the "
            "hostfile (or --num_accelerators)"
        )


def shm_problem(ranks_here: int, folder: Path = SHM) -> Iterator[str]:
    """Too little shared memory ends a rank on a CPU with SIGBUS, without a word."""
    needed = ranks_here * ALL_REDUCE_BUFFER
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    if environment.on_cpu() and ranks_here > 1 and free < needed:
        yield (
            f"{folder} has {human_bytes(free)} free, {ranks_here} ranks need {human_bytes(needed)}; give the container "
            f"more (docker --shm-size, Kubernetes: an emptyDir of medium Memory), or remove what dead runs left there "
            f"({len(leftovers(folder))} files deepspeed_*)"
        )


def leftovers(folder: Path = SHM) -> list[Path]:
    """Buffers of DeepSpeed that runs left behind; living ones unlink theirs at the start."""
    return sorted(path for path in folder.glob("deepspeed_*") if os.access(path, os.W_OK))


def file_system(path: Path) -> str:
    """Type of the file system that a path is on, or will be; empty if that cannot be told."""
    path = path.absolute()
    there = next(each for each in (path, *path.parents) if each.exists())
    mounts = [m for m in psutil.disk_partitions(all=True) if there.is_relative_to(m.mountpoint)]
    return str(max(mounts, key=lambda m: len(m.mountpoint)).fstype) if mounts else ""
