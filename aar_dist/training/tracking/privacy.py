"""What may leave this machine: no key, no password, no signature.

configuration -> scrubbed;  environment -> the few variables that tell how a run was started
"""

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from aar_dist.base.transport import shown

HIDDEN = "(hidden)"
SECRET = re.compile(
    r"(?i)(secret|password|passwd|credential|signature|api_?key|access_?key|auth|(^|_)(key|token|sas)$)"
)
URL = re.compile(r"""\b(?!store:)[a-z][a-z0-9+.-]*://[^\s"'<>]+""", re.IGNORECASE)
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


def without_secrets(text: str) -> str:
    """Text whose URLs have no user, password or query any more."""
    return URL.sub(lambda found: _bare(found[0]), text)


def _bare(url: str) -> str:
    try:
        return shown(urlsplit(url))
    except ValueError:
        return HIDDEN


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that tell how a run was started, by name; nobody knows what the others hold."""
    told = {k: v for k, v in environ.items() if k.startswith(TELLING) or k in TELLING_NAMES}
    kept: dict[str, str] = scrubbed(dict(sorted(told.items())))
    return kept
