"""What a model costs, told before anything runs.

    objective, copied to the meta device -> parameters, tokens, FLOPs, memory a rank at each ZeRO stage

The meta device has shapes and no memory: forward and backward are really traced there, so FLOPs (torch's counter,
2 for a multiply-add) and the tensors kept for backward are counted for any objective, at any size.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from aar_dist.base.cli import human_bytes
from aar_dist.objectives.base import Objective
from aar_dist.store.checkpoint import build_objective
from aar_dist.stream.batch import SegmentBatch
from aar_dist.training.config import PretrainConfig
from aar_dist.training.sizes.memory import LAYOUTS, activations, states

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

Description = dict[str, Any]


def describe(
    objective: Objective,
    *,
    rates_hz: Sequence[float] = (25.0, 100.0),
    segment_duration: float = 10.0,
    max_window_length: int = 1000,
    n_channels: int = 3,
    micro_batch_size: int = 256,
    world_size: int = 2,
    activation_checkpointing: bool = False,
) -> Description:
    """Parameters, cost of one segment at each rate, and memory of one rank; plain numbers, ready for JSON.

    Memory is what stays: weights, gradients, optimizer state and what the forward pass keeps for backward, without
    communication buffers and passing temporaries. Activations are those of ``micro_batch_size`` of the costliest
    segments.

    Args:
        objective: On any device; it is left as it is.
        rates_hz: Sampling rates to tell about.
        segment_duration: Of one segment [s].
        max_window_length: Longest segment handed on [samples].
        n_channels: Axes of one segment.
        micro_batch_size: Segments that one rank runs at once.
        world_size: Ranks.
        activation_checkpointing: Keep the layers' inputs, and compute the rest again in backward.
    """
    model = deepcopy(objective).to("meta").train()
    blank = partial(
        blank_batch, duration_s=segment_duration, max_window_length=max_window_length, n_channels=n_channels
    )
    segments = [_segment(model, rate, blank(1, rate)) for rate in rates_hz]
    costliest = max(segments, key=itemgetter("tokens"))
    return {
        "parameters": _parameters(model),
        "segments": segments,
        "memory": {
            "micro_batch_size": micro_batch_size,
            "world_size": world_size,
            "activation_checkpointing": activation_checkpointing,
            "rows": _memory(
                model, blank(micro_batch_size, costliest["rate_hz"]), world_size, checkpointing=activation_checkpointing
            ),
        },
    }


def describe_config(config: PretrainConfig, world_size: int) -> Description:
    """:func:`describe` for a run as it is configured, at 25 and 100 Hz.

    Raises:
        ConfigError: a value out of range, or a batch size that the ranks do not divide.
    """
    micro_batch_size, _ = config.train.micro_batches(world_size)
    with torch.device("meta"):
        objective = build_objective(config.model, config.objective)
    return describe(
        objective,
        segment_duration=config.data.segment_duration,
        max_window_length=config.data.max_window_length,
        micro_batch_size=micro_batch_size,
        world_size=world_size,
        activation_checkpointing=config.deepspeed.activation_checkpointing,
    )


def _parameters(model: Objective) -> dict[str, Any]:
    heads = {name: child for name, child in model.named_children() if child is not model.backbone}
    parts = {f"backbone.{name}": _count(child) for name, child in model.backbone.named_children()}
    return {
        "total": _count(model),
        "backbone": _count(model.backbone),
        "heads": _count(model) - _count(model.backbone),
        "parts": parts | {name: _count(head) for name, head in heads.items()},
    }


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def blank_batch(
    size: int, rate_hz: float, *, duration_s: float, max_window_length: int, n_channels: int, device: str = "meta"
) -> SegmentBatch:
    """Fully recorded segments of zeros; the meta device cannot be asked how long they are."""
    n_samples = min(round(duration_s * rate_hz), max_window_length)
    with torch.device(device):
        return SegmentBatch(
            values=torch.zeros(size, n_samples, n_channels),
            valid=torch.ones(size, n_samples, n_channels, dtype=torch.bool),
            rate_hz=torch.full((size,), float(rate_hz)),
            dataset=torch.zeros(size, dtype=torch.int64),
            channel=torch.zeros(size, n_channels, dtype=torch.int64),
            key=torch.zeros(size, dtype=torch.int64),
            duration_s=(min(duration_s, n_samples / rate_hz),) * size,
        )


def _segment(model: Objective, rate_hz: float, batch: SegmentBatch) -> dict[str, float]:
    _, n_samples, n_channels = batch.values.shape
    with torch.no_grad():
        tokens = model.backbone.encode(batch).shape[1]
    with FlopCounterMode(display=False) as counter:
        loss, _ = model(batch)
        forward = counter.get_total_flops()
        loss.backward()
    return {
        "rate_hz": rate_hz,
        "samples": n_samples,
        "channels": n_channels,
        "tokens": tokens,
        "flops_forward": forward,
        "flops_forward_backward": counter.get_total_flops(),
    }


def _memory(model: Objective, batch: SegmentBatch, world_size: int, *, checkpointing: bool) -> list[dict[str, Any]]:
    rows = []
    for precision, dtype in PRECISIONS.items():
        kept = activations(model.to(dtype), batch)[checkpointing]
        for stage, offload in LAYOUTS:
            of = states(_count(model), dtype.itemsize, stage, world_size, offload)
            total = sum(of.values()) - of["host"] + kept
            about = {"precision": precision, "zero_stage": stage, "offload": offload}
            rows.append(about | of | {"activations": kept, "total": total})
    return rows


def render(description: Description) -> str:
    """Three tables, at most 100 characters wide."""
    parameters, memory = description["parameters"], description["memory"]
    rows = [*parameters["parts"].items(), *((name, parameters[name]) for name in ("backbone", "heads", "total"))]
    model = table("Parameters", ["part", "parameters"], [[name, f"{n:,}"] for name, n in rows])
    segments = table(
        "One segment",
        ["rate", "samples x axes", "tokens", "forward", "forward + backward"],
        [
            [
                f"{s['rate_hz']:g} Hz",
                f"{s['samples']} x {s['channels']}",
                f"{s['tokens']}",
                f"{s['flops_forward'] / 1e9:.3f} GFLOP",
                f"{s['flops_forward_backward'] / 1e9:.3f} GFLOP",
            ]
            for s in description["segments"]
        ],
    )
    columns = ("parameters", "gradients", "optimizer", "activations", "total", "host")
    how = ", activation checkpointing" if memory["activation_checkpointing"] else ""
    states = table(
        f"Memory of one of {memory['world_size']} ranks, {memory['micro_batch_size']} segments at once{how} (estimate)",
        ["", "ZeRO", "offload", *columns],
        [
            [r["precision"], str(r["zero_stage"]), r["offload"], *(human_bytes(r[c]) for c in columns)]
            for r in memory["rows"]
        ],
    )
    console = Console(width=100)
    with console.capture() as capture:
        console.print(model, segments, states)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    """The first column to the left, numbers to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table
