"""Hugging Face's PatchTST, pretrained by masking, at the width and depth of ours."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PatchTSTConfig, PatchTSTForPretraining

PATCH = 25


def readers(settings: dict[str, Any]) -> dict[str, Iterator[Tensor]]:
    """Over the arrays at 100 Hz, without dropout (its default)."""
    values = torch.from_numpy(np.load(settings["arrays"]["100 Hz"])).transpose(1, 2).contiguous()
    return {"PatchTST 100 Hz, dropout 0": trained(values, settings)}


def trained(values: Tensor, settings: dict[str, Any]) -> Iterator[Tensor]:
    """Each batch (n, T, 3) once it has been trained on."""
    torch.manual_seed(0)
    d = settings["d"]
    config = PatchTSTConfig(
        num_input_channels=values.shape[2],
        context_length=values.shape[1],
        patch_length=PATCH,
        patch_stride=PATCH,
        num_hidden_layers=settings["n_layers"],
        d_model=d,
        num_attention_heads=d // 64,
        ffn_dim=4 * d,
        activation_function="relu",
        do_mask_input=True,
        random_mask_ratio=0.5,
    )
    model = PatchTSTForPretraining(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9)
    while True:
        for rows in torch.randperm(len(values)).split(settings["batch"]):
            batch = values[rows]
            optimizer.zero_grad()
            loss = model(past_values=batch).loss
            loss.backward()
            optimizer.step()
            loss.item()
            yield batch
