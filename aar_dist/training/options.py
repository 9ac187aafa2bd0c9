"""DeepSpeed's own configuration, made from ours."""

from typing import Any

import torch

from aar_dist.training.config import DeepSpeedConfig, LoopConfig
from aar_dist.training.ranks import Ranks

LARGEST_BUCKET = 500_000_000


def ds_json(
    config: DeepSpeedConfig, train: LoopConfig, ranks: Ranks, *, bf16: bool, n_parameters: int
) -> dict[str, Any]:
    """DeepSpeed's configuration. Everything it has a surprising default for is said."""
    micro, accumulation = train.micro_batches(ranks.world_size)
    # Even, because DeepSpeed aligns what it gathers to two elements.
    bucket = min(LARGEST_BUCKET, n_parameters + n_parameters % 2)
    return {
        "train_batch_size": train.batch_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 0.0 if clips_itself(config, bf16=bf16) else config.gradient_clipping,
        "bf16": {"enabled": bf16},
        "zero_optimization": {
            "stage": config.zero_stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            **_offload(config),
            **config.zero_options,
        },
        # Torch's Adam is what steps offloaded state: DeepSpeed's own does not resume bit for bit.
        "zero_force_ds_cpu_optimizer": False,
        "checkpoint": {"tag_validation": "Fail"},
        "wall_clock_breakdown": False,
    }


def _offload(config: DeepSpeedConfig) -> dict[str, Any]:
    kinds = {"none": (), "optimizer": ("offload_optimizer",), "all": ("offload_optimizer", "offload_param")}
    return {kind: {"device": "cpu"} for kind in kinds[config.offload]}


def clips_itself(config: DeepSpeedConfig, *, bf16: bool) -> bool:
    """True for stage 0 in fp32, where DeepSpeed hands the gradients to the optimizer unseen: there we look at them."""
    return config.zero_stage == 0 and not bf16


def precision_of(config: DeepSpeedConfig, device: torch.device) -> str:
    """``fp32`` or ``bf16``."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.type == "cuda" else "fp32"


def layout_of(config: DeepSpeedConfig, ranks: Ranks, device: torch.device) -> dict[str, Any]:
    """What DeepSpeed's files are cut by: it loads a checkpoint only into the same."""
    return {
        "ranks": ranks.world_size,
        "zero_stage": config.zero_stage,
        "precision": precision_of(config, device),
        "offload": config.offload,
        "zero_options": config.zero_options,
    }
