"""The process group: joined, left, and what is said when a member is lost. Beside engine.py the only file that knows
DeepSpeed.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from aar_dist.base.errors import PassingError, one_line
from aar_dist.training import environment
from aar_dist.training.environment import muted
from aar_dist.training.health.config import HealthConfig
from aar_dist.training.meeting.meeting import attend
from aar_dist.training.ranks import Ranks, barrier

log = logging.getLogger(__name__)

LOST_PEER_EXIT = 3
COLLECTIVE_TIMEOUT = HealthConfig().collective_timeout


@contextmanager
def process_group(ranks: Ranks, timeout: timedelta = COLLECTIVE_TIMEOUT) -> Iterator[torch.device]:
    """This process's place in the group, and the device it computes on. Ends with a barrier and a proper farewell:
    without them some finished runs aborted."""
    with attend() as met:
        yield from _group(ranks, met.group_store(), timeout)


def _group(ranks: Ranks, store: Store, timeout: timedelta) -> Iterator[torch.device]:
    environment.prepare(ranks)
    _alone_if_no_launcher(ranks)
    with muted():
        import deepspeed
    _quiet()
    device = torch.device("cpu") if environment.on_cpu() else torch.device("cuda", ranks.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with muted():
        _join(ranks, store, device, timeout)
        deepspeed.init_distributed(verbose=False, timeout=timeout)
    barrier()
    environment.remove_shared_buffers(ranks)
    try:
        yield device
    except BaseException:
        if ranks.world_size == 1:  # nobody else to wait for, and this process may be given another run
            deepspeed.comm.destroy_process_group()
        raise
    barrier()
    # DeepSpeed's own farewell: it forgets its groups too, so that this process may have another run.
    deepspeed.comm.destroy_process_group()


def _join(ranks: Ranks, store: Store, device: torch.device, timeout: timedelta) -> None:
    """Make the group over the store of the meeting, as DeepSpeed would over one of its own; it takes what it finds."""
    from deepspeed.accelerator import get_accelerator

    dist.init_process_group(
        get_accelerator().communication_backend_name(),
        store=store,
        rank=ranks.rank,
        world_size=ranks.world_size,
        timeout=timeout,
        device_id=device if device.type == "cuda" and ranks.world_size > 1 else None,
    )


@contextmanager
def lost_peer(ranks: Ranks, out: Path) -> Iterator[None]:
    """Another rank's death shows here as a broken collective: rank 0 says so in one line, the others leave it at their
    log. (NCCL does not notice; there the launcher ends this process.)"""
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in ("Connection closed by peer", "Connection reset", "Broken pipe")):
            raise
        with attend() as met:
            met.look()  # it may have said why
            silent = ranks.rank == 1 and met.main_is_gone()
        log.warning("lost another rank: %s", one_line(error))
        if silent:  # killed, perhaps for the memory it took: nobody else would speak
            print("error: rank 1: rank 0 is gone; the same command resumes from the last checkpoint", file=sys.stderr)
        if not ranks.main:
            sys.stderr.flush()
            os._exit(LOST_PEER_EXIT)
        raise PassingError(
            f"another rank is gone (its own message, or {out}/log, says why); the same command resumes from the last "
            "checkpoint"
        ) from None


def _alone_if_no_launcher(ranks: Ranks) -> None:
    if "RANK" not in os.environ:
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        os.environ.update(alone)


def compile_helper() -> None:
    """Compile DeepSpeed's all-reduce for CPUs, if it is not there, as the first start of a run would."""
    environment.prepare(Ranks(0, 1, 0, 1))
    with muted():
        from deepspeed.comm.torch import build_shm_op

        build_shm_op()


def _quiet() -> None:
    """DeepSpeed's remarks go to the rank's log file, not to the terminal."""
    logger = logging.getLogger("DeepSpeed")
    logger.setLevel(logging.WARNING)
    for handler in list(logger.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr):
            logger.removeHandler(handler)
    logger.propagate = True
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
