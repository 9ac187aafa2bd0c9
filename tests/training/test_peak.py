"""What a model's speed is measured against: published figures by name, and what this machine does."""

import pytest
import torch

from aar_dist.training.sizes.peak import matmul_tflops, measured, published


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA H200", 989.4, 67.0),
        ("NVIDIA H200 NVL", 835.5, 60.0),
        ("NVIDIA H100 80GB HBM3", 989.4, 67.0),
        ("NVIDIA H100 PCIe", 756.0, 51.0),
        ("NVIDIA A100-SXM4-80GB", 312.0, 19.5),
        ("NVIDIA A10", 125.0, 31.2),
        ("NVIDIA L40S", 362.0, 91.6),
        ("NVIDIA L4", 121.0, 30.3),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
        ("NVIDIA A10G", None, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, None),
        ("Radeon", None, None),
    ],
)
def test_figures_by_name(name, bf16, fp32, monkeypatch):
    assert published(name, "bf16") == bf16
    assert published(name, "fp32") == fp32
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert published(name, "fp32") is None  # TF32 is another figure


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cpu_is_measured(precision):
    found = matmul_tflops(torch.device("cpu"), precision)
    assert 0.0005 < found < 50  # a plain loop in C reaches 0.001; hundreds of cores 10


def test_the_best_size_counts(monkeypatch):
    rates = {256: 1e9, 512: 3e9, 1024: 2e9}
    monkeypatch.setattr("aar_dist.training.sizes.peak._rate", lambda n, device, dtype: rates[n])
    assert measured(torch.device("cpu"), torch.float32) == 0.003
