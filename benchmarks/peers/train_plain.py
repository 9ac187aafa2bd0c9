"""The first system's way of training, written plainly: torch's own encoder over arrays in memory, padded to 1000.

(N, 3, 1000) -> (n * 3, 40, 25), half of the patches zeroed -> nn.TransformerEncoder -> error of those patches
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PATCH, VISIBLE_SHARE, WARMUP = 25, 0.5, 4000


class PlainModel(nn.Module):
    """Pre-norm encoder over the patches of one axis at a time; padding is data like any other."""

    def __init__(self, *, d: int, n_layers: int, n_patches: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Linear(PATCH, d, bias=False)
        self.positions = nn.Parameter(torch.empty(n_patches, d).uniform_(-0.02, 0.02))
        layer = nn.TransformerEncoderLayer(d, d // 64, 4 * d, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, n_layers, nn.LayerNorm(d), enable_nested_tensor=False)
        self.head = nn.Linear(d, PATCH, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        """(n, 3, T) -> mean squared error of the hidden patches."""
        patches = values.reshape(-1, self.positions.shape[0], PATCH)
        order = torch.rand(patches.shape[:2], device=values.device).argsort(1)
        hidden = (order >= int(order.shape[1] * VISIBLE_SHARE))[..., None]
        tokens = self.embedding(patches.masked_fill(hidden, 0.0)) + self.positions
        error = (self.head(self.encoder(tokens)) - patches).square()
        return (error * hidden).sum() / (hidden.sum() * PATCH)


def trained(values: Tensor, *, dropout: float, settings: dict[str, Any]) -> Iterator[Tensor]:
    """Each batch of shuffled epochs, once it has been trained on."""
    torch.manual_seed(0)
    d = settings["d"]
    model = PlainModel(d=d, n_layers=settings["n_layers"], n_patches=values.shape[2] // PATCH, dropout=dropout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), eps=1e-9)
    step = 0
    while True:
        for rows in torch.randperm(len(values)).split(settings["batch"]):
            step += 1
            optimizer.param_groups[0]["lr"] = d**-0.5 * min(step**-0.5, step * WARMUP**-1.5)
            batch = values[rows]
            optimizer.zero_grad()
            loss = model(batch)
            loss.backward()
            optimizer.step()
            loss.item()
            yield batch


def readers(settings: dict[str, Any]) -> dict[str, Iterator[Tensor]]:
    """With dropout 0.1 and without, for each data set."""
    arrays = {name: torch.from_numpy(np.load(path)) for name, path in settings["arrays"].items()}
    return {
        f"plain {name}, dropout {dropout:g}": trained(values, dropout=dropout, settings=settings)
        for name, values in arrays.items()
        for dropout in (0.1, 0.0)
    }
