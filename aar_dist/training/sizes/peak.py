"""How fast this rank's accelerator multiplies matrices: what a model's speed is measured against.

a GPU by its name -> the published figure;  a CPU, or a GPU that nobody listed -> measured, in less than a second
"""

import re
import time

import torch

from aar_dist.training.ranks import barrier, mean_ranks

PUBLISHED = (
    (r"B200", 2250.0, 75.0),
    (r"H200 NVL|H100 NVL", 835.5, 60.0),
    (r"H100 PCIe", 756.0, 51.0),
    (r"H200|H100|GH200", 989.4, 67.0),
    (r"A100", 312.0, 19.5),
    (r"A30", 165.0, 10.3),
    (r"A10", 125.0, 31.2),
    (r"L40S", 362.0, 91.6),
    (r"L40", 181.0, 90.5),
    (r"L4", 121.0, 30.3),
    (r"RTX 6000 Ada Generation", 364.2, 91.1),
    (r"RTX A6000", 154.8, 38.7),
    (r"RTX 4090", 165.2, 82.6),
    (r"RTX 3090", 71.0, 35.6),
)
"""Name, bf16 on tensor cores without sparsity and with float32 sums, fp32 without TF32: TFLOP/s, from the makers' data
sheets. The first name that fits as a whole word counts."""

OTHERWISE = re.compile(r"\b(MIG|Laptop|Max-Q)\b|Mobile")
"""A part of a GPU, or one with less power than the name says."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "autocast": torch.bfloat16}
"""Of the matrices that are multiplied."""
SIZES = {"cpu": (256, 512, 1024), "cuda": (4096, 8192)}
SECONDS = 0.1
"""For each size; the best one counts."""


def matmul_tflops(device: torch.device, precision: str) -> float:
    """TFLOP/s of one rank; the mean over all, which measure at the same time and must all call this.

    Args:
        device: Of this rank; a CPU is measured with the threads torch has been given.
        precision: ``fp32``, ``bf16`` or ``autocast``.
    """
    found = published(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None
    barrier()
    return round(float(mean_ranks(torch.tensor(found or measured(device, DTYPES[precision])))), 4)


def published(name: str, precision: str) -> float | None:
    """What a GPU of this name is said to do [TFLOP/s]; None where that is not known, or not what torch would use."""
    if OTHERWISE.search(name) or (precision == "fp32" and torch.get_float32_matmul_precision() != "highest"):
        return None
    for pattern, bf16, fp32 in PUBLISHED:
        if re.search(rf"\b({pattern})\b", name):
            return fp32 if precision == "fp32" else bf16
    return None


def measured(device: torch.device, dtype: torch.dtype) -> float:
    """What square products reach here [TFLOP/s]."""
    return max(_rate(n, device, dtype) for n in SIZES[device.type]) / 1e12


def _rate(n: int, device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest product of two n x n matrices, tried for SECONDS."""
    a, b = (torch.full((n, n), 0.5, device=device, dtype=dtype) for _ in range(2))
    out = a @ b
    best, until = float("inf"), _now(device) + SECONDS
    while (began := _now(device)) < until:
        torch.mm(a, b, out=out)
        best = min(best, _now(device) - began)
    return 2.0 * n**3 / best


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
