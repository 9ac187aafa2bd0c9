"""mosaicml-streaming: windows cut beforehand, through torch's DataLoader."""

import sys
import types
from collections.abc import Iterator
from typing import Any

# Its import of pictures needs a torchvision that fits torch's build, which PyPI has for CUDA only; no picture is read.
sys.modules["streaming.vision"] = types.ModuleType("streaming.vision")

from samples import NAMES, folder, precut  # noqa: E402
from streaming import MDSWriter, StreamingDataset  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402


def readers(settings: dict[str, Any]) -> dict[str, Iterator[Any]]:
    """Batches for ever, (512, 1000, 3)."""
    return {f"mosaicml-streaming pre-cut {name}": _precut(settings, name) for name in NAMES}


def _precut(settings: dict[str, Any], name: str) -> Iterator[Any]:
    where, windows = str(folder(settings, "mosaic", name)), precut(settings, name)
    shape = ",".join(map(str, windows.shape[1:]))
    columns = {"x": f"ndarray:{windows.dtype.name}:{shape}"}
    with MDSWriter(out=where, columns=columns, size_limit="64mb", exist_ok=True) as writer:
        for values in windows:
            writer.write({"x": values})
    dataset = StreamingDataset(local=where, shuffle=True, batch_size=settings["batch"])
    loader = DataLoader(dataset, batch_size=settings["batch"], num_workers=0, drop_last=True)
    while True:
        for batch in loader:
            yield batch["x"]
