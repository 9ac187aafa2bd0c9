"""Memory of one rank, by formula and by a traced pass.

parameters, ZeRO stage, offload -> bytes of the states;  objective on the meta device -> bytes kept for backward
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from aar_dist.objectives.base import Objective
from aar_dist.stream.batch import SegmentBatch
from aar_dist.training.sizes.recompute import recompute

LAYOUTS = (
    *((stage, "none") for stage in range(4)),
    *((stage, "optimizer") for stage in range(1, 4)),
    (3, "all"),
)
"""(ZeRO stage, deepspeed.offload) that go together."""
ADAM_BYTES = 8
"""Two float32 moments a parameter."""
MASTER_BYTES = 4
"""A float32 copy of each parameter, kept by DeepSpeed in bf16, and in fp32 too from stage 1 on."""
HOST_GRADIENT_BYTES = 4
"""Where the optimizer is offloaded, a float32 gradient of its share waits for it on the host."""


def states(n: int, itemsize: int, stage: int, world_size: int, offload: str = "none") -> dict[str, int]:
    """Bytes of ``parameters``, ``gradients`` and ``optimizer`` on one rank's device, and of all that it has on its
    ``host``.

    Optimizer state is shared out from stage 1 on, gradients from 2, parameters at 3 (Rajbhandari et al. 2020, ZeRO,
    section 5). From stage 2 on, an offloaded optimizer's gradients leave the device as soon as they are reduced
    (Ren et al. 2021, ZeRO-Offload, section 4).

    Args:
        n: Parameters of the model.
        itemsize: Bytes of one in forward and backward.
        offload: ``none``, ``optimizer``, or ``all`` for the parameters too.
    """
    share = -(-n // world_size)
    master = MASTER_BYTES if stage > 0 or itemsize < 4 else 0
    parameters = itemsize * (share if stage >= 3 else n)
    gradients = itemsize * (share if stage >= 2 else n)
    optimizer = (ADAM_BYTES + master) * (share if stage >= 1 else n)
    host = 0
    if offload != "none":
        host, optimizer = optimizer + HOST_GRADIENT_BYTES * share, 0
        gradients = 0 if stage >= 2 else gradients
    if offload == "all":
        host, parameters = host + parameters, 0
    return {"parameters": parameters, "gradients": gradients, "optimizer": optimizer, "host": host}


def activations(objective: Objective, batch: SegmentBatch) -> tuple[int, int]:
    """Bytes that one forward pass of a batch keeps for backward: as it is, and with activation checkpointing, when
    beside the layers' inputs the insides of one layer are there."""
    plain = kept_for_backward(objective, batch)
    changed = deepcopy(objective)
    n_layers = recompute(changed)
    kept = kept_for_backward(changed, batch)
    return plain, kept + (plain - kept) // max(1, n_layers)


def kept_for_backward(objective: Objective, batch: SegmentBatch) -> int:
    """Bytes that a forward pass keeps for backward, parameters aside; each storage counted once."""
    weights = {p.untyped_storage()._cdata for p in objective.parameters()}
    kept: dict[int, Any] = {}  # holds each storage, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        objective(batch)
    return sum(int(storage.nbytes()) for address, storage in kept.items() if address not in weights)
