"""What may leave this machine: no key, no password, no signature.

configuration -> scrubbed;  environment -> the few variables that tell how a run was started
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from aar_dist.base.addresses import HIDDEN, without_secrets

SECRET = re.compile(
    r"(?i)(secret|password|passwd|credential|signature|api_?key|access_?key|auth|(^|_)(key|token|sas)$)"
)
TELLING = ("ACCELERATE_", "CUDA_", "DEEPSPEED_", "DS_", "GLOO_", "MKL_", "NCCL_", "OMP_", "PYTORCH_", "TORCH_")
TELLING_NAMES = (
    "LOCAL_SIZE", "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_NNODES", "SLURM_RESTART_COUNT",
    "WANDB_MODE", "WORLD_SIZE",
)  # fmt: skip


def scrubbed(value: Any, name: str = "") -> Any:
    """A value of a configuration without what may be secret: text under a telling name, and what URLs carry beside
    their address."""
    if isinstance(value, Mapping):
        return {key: scrubbed(one, str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [scrubbed(one, name) for one in value]
    if isinstance(value, str):
        return HIDDEN if value and SECRET.search(name) else without_secrets(value)
    return value


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that tell how a run was started, by name; nobody knows what the others hold."""
    told = {k: v for k, v in environ.items() if k.startswith(TELLING) or k in TELLING_NAMES}
    kept: dict[str, str] = scrubbed(dict(sorted(told.items())))
    return kept
