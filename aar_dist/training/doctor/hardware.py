"""Checks of a machine: cores, memory, shared memory, disk, port, its own name."""

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from aar_dist.base.cli import human_bytes
from aar_dist.training import environment
from aar_dist.training.doctor.finding import Finding, Wanted, ok, problem, warning
from aar_dist.training.meeting.machine import SHM, file_system, leftovers, shm_problem

MEMORY_PER_RANK = 2e9
DISK_LOW, DISK_NONE = 20e9, 1e9
SHM_WITH_GPUS = 1e9
"""NCCL's own advice for containers (docker --shm-size=1g)."""


def hardware(wanted: Wanted) -> Iterator[Finding]:
    """All of this file."""
    yield _cores(wanted)
    yield _memory(wanted)
    yield from _shm(wanted)
    yield _disk(Path(wanted.run or "."), named=bool(wanted.run))
    if wanted.first:
        yield _port(wanted.port)
    if wanted.hosts > 1:
        yield _name()


def slots_of(wanted: Wanted) -> int:
    """The ranks of this machine; not told how many, one a GPU or two on a CPU, as in the documentation."""
    return wanted.slots or (2 if environment.on_cpu() else torch.cuda.device_count())


def _cores(wanted: Wanted) -> Finding:
    cores, slots = len(os.sched_getaffinity(0)), slots_of(wanted)
    told = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(told) if told.isdigit() else max(1, cores // slots)
    said = f"{cores} cores, {slots} rank(s) of {threads} thread(s)" + (" (OMP_NUM_THREADS)" if told.isdigit() else "")
    if not environment.on_cpu() and slots > torch.cuda.device_count():
        return problem("cores", f"{slots} slots, {torch.cuda.device_count()} GPUs", "lower slots= in the hostfile")
    if slots * threads > cores:
        return warning("cores", said, "more threads than cores cost 5-10x: lower OMP_NUM_THREADS or slots=")
    return ok("cores", said)


def _memory(wanted: Wanted) -> Finding:
    free, slots = psutil.virtual_memory().available, slots_of(wanted)
    said = f"{human_bytes(free)} free"
    if free < MEMORY_PER_RANK * slots:
        return warning("memory", said, f"{slots} ranks take about {human_bytes(MEMORY_PER_RANK * slots)}: free some")
    return ok("memory", said)


def _shm(wanted: Wanted) -> Iterator[Finding]:
    found = next(shm_problem(slots_of(wanted)), None)
    free = shutil.disk_usage(SHM).free if SHM.is_dir() else 0
    if found:
        said, _, remedy = found.partition("; ")
        yield problem("shared memory", said, remedy)
    elif not environment.on_cpu() and free < SHM_WITH_GPUS:
        yield warning(
            "shared memory", f"{SHM} has {human_bytes(free)} free", "NCCL asks for 1 GB: docker --shm-size=1g"
        )
    else:
        yield ok("shared memory", f"{SHM} has {human_bytes(free)} free")
    left = leftovers()
    if left:
        size = human_bytes(sum(path.stat().st_size for path in left if path.exists()))
        yield warning(
            "shared memory",
            f"{len(left)} files deepspeed_* ({size}) of runs",
            f"if none runs now: rm {SHM}/deepspeed_*",
        )


def _disk(path: Path, *, named: bool) -> Finding:
    path = path.absolute()
    there = next(each for each in (path, *path.parents) if each.is_dir())
    free, kind = shutil.disk_usage(there).free, file_system(path)
    said = f"{path} has {human_bytes(free)} free ({kind})"
    if not os.access(there, os.W_OK):
        return problem("disk", f"{there} cannot be written", "choose another --out, or mend its permissions")
    if path.exists() and not path.is_dir():
        return problem("disk", f"{path} is a file", "choose another --out")
    if named and free < DISK_NONE:
        return problem("disk", said, "no checkpoint fits: free space or choose another --out")
    if free < DISK_LOW:
        return warning("disk", said, "a checkpoint takes 16 bytes a parameter: free space")
    return ok("disk", said)


def _port(port: int) -> Finding:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            probe.listen()
    except OSError as error:
        remedy = "give the launcher another: --master_port N"
        said = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        return problem("port", f"{port} {said}", remedy)
    return ok("port", f"{port} is free")


def _name() -> Finding:
    """Gloo takes the network interface that the host's own name stands for."""
    name = socket.gethostname()
    told = os.environ.get("GLOO_SOCKET_IFNAME") or os.environ.get("NCCL_SOCKET_IFNAME")
    if told:
        return ok("own name", f"{name}; interface {told} is told")
    try:
        address = socket.gethostbyname(name)
    except OSError:
        address = ""
    if not address or address.startswith("127."):
        return warning(
            "own name",
            f"{name} is {address or 'unknown'} to itself",
            "if ranks do not find each other: GLOO_SOCKET_IFNAME=<interface> in .deepspeed_env",
        )
    return ok("own name", f"{name} is {address}")
