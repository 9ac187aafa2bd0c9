"""What a process needs set before DeepSpeed is imported.

One folder of compiled helpers for each environment, no lock of a dead owner in it, threads that fit the cores.
"""

import ctypes
import fcntl
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from aar_dist.base.errors import ConfigError
from aar_dist.training.meeting.interface import choose_interface
from aar_dist.training.ranks import Ranks

COMM_HELPER = "deepspeed_shm_comm"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of malloc.h
MMAP_ABOVE_BYTES = 1 << 30


def prepare(ranks: Ranks) -> None:
    """Set up this process. Raises ``ConfigError`` if something must be compiled and there is no compiler."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    scripts = sysconfig.get_path("scripts")  # ninja of this environment
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    folder = extensions_folder()
    folder.mkdir(parents=True, exist_ok=True)
    clear_dead_locks(folder)
    if on_cpu() and not (folder / COMM_HELPER / f"{COMM_HELPER}.so").exists():
        require_compiler()
        if ranks.main:
            print("compiling DeepSpeed's CPU all-reduce, once for this environment (about a minute)", flush=True)
    set_threads(ranks)
    if on_cpu():
        keep_freed_memory()
    choose_interface(ranks)


def on_cpu() -> bool:
    """True if DeepSpeed will run on the CPU."""
    return os.environ.get("DS_ACCELERATOR") == "cpu" or not torch.cuda.is_available()


def extensions_folder() -> Path:
    """Where DeepSpeed's helpers are compiled: one for each environment, since they are bound to its torch."""
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions"))
    return Path(os.environ["TORCH_EXTENSIONS_DIR"])


def clear_dead_locks(folder: Path) -> list[Path]:
    """Remove locks whose owner died in a build: torch would wait for them for ever, without a word.

    A live owner holds its lock file open. Only one process at a time looks, so that none removes a lock that was
    made after another had cleared the dead one.
    """
    with open(folder / ".clearing", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        locks = list(folder.glob("**/lock"))
        held = _open_files() if locks else set()
        dead = [lock for lock in locks if str(lock.resolve()) not in held]
        for lock in dead:
            lock.unlink(missing_ok=True)
    return dead


def _open_files() -> set[str]:
    """Every file that some process of this machine holds open, as far as we may see."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found.add(os.readlink(link))
        except OSError:
            continue
    return found


def require_compiler() -> None:
    """DeepSpeed compiles its CPU all-reduce at the first start. Raises ``ConfigError``."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"no C++ compiler: {compiler!r} is not on the PATH, and DeepSpeed compiles a helper at its first start on "
            "a CPU. Install g++ (or clang), or name one in CXX"
        )


def set_threads(ranks: Ranks) -> None:
    """Share the cores among the ranks of this machine; OMP_NUM_THREADS wins. More threads than cores cost 5-10x."""
    cores = len(os.sched_getaffinity(0))
    threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or max(1, cores // ranks.local_world_size)
    torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Let malloc keep what large tensors leave behind. glibc hands it back to the kernel, which clears every page
    anew for the next one: a tenth of a training step of 512 segments. (Other C libraries know no such setting.)"""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option:
        set_option(M_MMAP_THRESHOLD, MMAP_ABOVE_BYTES)
        set_option(M_TRIM_THRESHOLD, 2**31 - 1)


def remove_shared_buffers(ranks: Ranks) -> None:
    """Unlink this rank's shared all-reduce buffer (69 MB), once every rank has mapped it: the mapping stays, and
    nothing is left behind even by a kill."""
    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    name = f"deepspeed_allreduce_buffer_{os.getuid()}_{address}_{port}_{ranks.local_rank}"
    (Path("/dev/shm") / name).unlink(missing_ok=True)


@contextmanager
def muted() -> Iterator[None]:
    """DeepSpeed, and the compilers and linkers it tries out, print notes of their own on both streams."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
        for descriptor in (*kept, nowhere):
            os.close(descriptor)
