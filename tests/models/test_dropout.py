"""Dropout with cheap random numbers: as often, as large and as repeatable as torch's."""

import pytest
import torch

from aar_dist.models.dropout import Dropout, ReluDropout, dropout, relu_dropout

DTYPES = (torch.float32, torch.bfloat16, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_scale_and_gradient(dtype, p):
    x = torch.ones(1000, 333, dtype=dtype, requires_grad=True)
    y = dropout(x, p)
    n = x.numel()
    assert abs((y == 0).double().mean() - p) < 5 * (p * (1 - p) / n) ** 0.5
    scale = torch.tensor(1 / (1 - p), dtype=dtype)
    assert ((y == 0) | (y == scale)).all()
    (y.double() * 3).sum().backward()
    torch.testing.assert_close(x.grad, 3 * y.detach())


@pytest.mark.parametrize("dtype", DTYPES)
def test_after_a_relu(dtype):
    x = torch.randn(300, 77, dtype=dtype, requires_grad=True)
    torch.manual_seed(3)
    fused = relu_dropout(x, 0.3)
    (gradient,) = torch.autograd.grad(fused.sum(), x)
    torch.manual_seed(3)
    steps = dropout(x.relu(), 0.3)
    assert torch.equal(fused, steps)
    assert torch.equal(gradient, torch.autograd.grad(steps.sum(), x)[0])


def test_follows_from_torchs_generator_alone():
    x = torch.ones(64, 63)
    torch.manual_seed(1)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.5), first)
    assert torch.equal(dropout(x, 0.5), second)
    torch.manual_seed(2)
    assert not torch.equal(dropout(x, 0.5), first)


def test_no_pattern_along_or_across_rows():
    dropped = (dropout(torch.ones(2000, 512), 0.5) == 0).double() - 0.5
    n = dropped.numel()
    for one, other in (
        (dropped[:, 1:], dropped[:, :-1]),
        (dropped[:, 4:], dropped[:, :-4]),
        (dropped[1:], dropped[:-1]),
    ):
        assert abs((one * other).mean() / 0.25) < 5 / n**0.5
    assert (dropped.mean(0).abs() < 6 * 0.5 / 2000**0.5).all()


def test_a_view_that_is_not_contiguous():
    x = torch.randn(8, 6, 5).transpose(0, 2).bfloat16()
    y = dropout(x, 0.5)
    assert torch.equal(y[y != 0], (x * 2)[y != 0])


def test_modules_drop_only_while_training():
    x = torch.randn(10, 10)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(ReluDropout(0.5).eval()(x), x.relu())
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1e-9)(x), x)
    assert (Dropout(0.5)(x) == 0).any()
    assert (ReluDropout(0.5)(x.abs() + 1) == 0).any()


def test_nothing_is_drawn_on_the_meta_device():
    assert dropout(torch.empty(4, 4, device="meta"), 0.1).is_meta
    assert relu_dropout(torch.empty(4, 4, device="meta"), 0.1).is_meta
