"""DeepSpeed's own configuration, made from ours."""

from typing import Any

import torch

from aar_dist.training.config import DeepSpeedConfig, LoopConfig
from aar_dist.training.ranks import Ranks, any_rank

LARGEST_BUCKET = 500_000_000


def ds_json(
    config: DeepSpeedConfig, train: LoopConfig, ranks: Ranks, *, bf16: bool, n_parameters: int, autocast: bool = False
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
        # No module's gradients are sent in bf16: the sum over ranks stays fp32.
        "torch_autocast": {"enabled": autocast, "dtype": "bfloat16", "lower_precision_safe_modules": []},
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
    """``fp32``, ``bf16`` or ``autocast``, the same on all ranks; every rank must ask."""
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16"
    return "fp32" if any_rank(not multiplies_bf16()) else "autocast"


def multiplies_bf16() -> bool:
    """True if this CPU has instructions for products of bf16 matrices; without them bf16 is slower than fp32."""
    return any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def layout_of(config: DeepSpeedConfig, ranks: Ranks, device: torch.device) -> dict[str, Any]:
    """What DeepSpeed's files are cut by: it loads a checkpoint only into the same."""
    return {
        "ranks": ranks.world_size,
        "zero_stage": config.zero_stage,
        "precision": precision_of(config, device),
        "offload": config.offload,
        "zero_options": config.zero_options,
    }
