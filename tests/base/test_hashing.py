"""The same bits in NumPy and torch, and evenly spread."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from aar_dist.base.hashing import below_np, hash_int, hash_np, hash_torch, uniform_np, word

words = st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=4)


@given(words, st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_numpy_and_torch_agree(words, values):
    array = np.array(values, np.int64)
    expected = hash_np(array, *words).view(np.int64)
    assert np.array_equal(hash_torch(torch.from_numpy(array), *words).numpy(), expected)


def test_golden():
    assert hash_int(0) == 16294208416658607535
    assert hash_int(578, word("segment"), 0, 1) == int(hash_np(578, word("segment"), 0, np.array([1]))[0])
    assert word("mask") == 6680010414020607816


def test_uniform_and_below_are_even():
    h = hash_np(1, np.arange(100_000))
    u = uniform_np(h)
    assert 0 <= u.min() < u.max() < 1
    assert np.abs(np.histogram(u, 10, (0, 1))[0] / 10_000 - 1).max() < 0.05
    assert np.abs(np.bincount(below_np(h, 7)) / (100_000 / 7) - 1).max() < 0.05
    assert below_np(h[:3], np.array([0, 1, 1])).tolist() == [0, 0, 0]
