"""Packing sequences of unequal length and getting them back."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aar_dist.models.packing import bucketed, join, padded
from aar_dist.models.transformer import AAREncoder


@st.composite
def presence(draw):
    """(N, P) bool with any pattern of gaps, empty rows included."""
    n, p = draw(st.integers(1, 9)), draw(st.integers(1, 41))
    rows = draw(st.lists(st.lists(st.booleans(), min_size=p, max_size=p), min_size=n, max_size=n))
    lengths = draw(st.lists(st.integers(0, p), min_size=n, max_size=n))
    return torch.tensor(rows) & (torch.arange(p) < torch.tensor(lengths)[:, None])


@given(presence())
@settings(max_examples=60, deadline=None)
def test_present_tokens_come_back_where_they_were(present):
    n, p = present.shape
    x = torch.arange(1, n * p * 2 + 1, dtype=torch.float32).view(n, p, 2)
    for layout in (bucketed(present), padded(present)):
        back = layout.unpack(join(layout.split(layout.pack(x))))
        assert torch.equal(back[present], x[present])
        assert ((back == 0) | (back == x)).all()
        assert sum(bucket.count for bucket in layout.buckets) == n


@given(presence())
@settings(max_examples=20, deadline=None)
def test_buckets_give_what_padding_gives(present):
    model = AAREncoder(d_embedding=64, n_layers=1, patch_size=4, max_window_length=164).eval()
    values = torch.randn(1, *present.shape, 4)
    bucket = model.encode_patches(values, present[None])
    model._layout = padded
    torch.testing.assert_close(bucket, model.encode_patches(values, present[None]), atol=1e-5, rtol=0)


def test_short_sequences_are_not_computed_at_full_length():
    present = torch.arange(40) < torch.tensor([10, 40, 20, 10])[:, None]
    layout = bucketed(present)
    assert [(b.count, b.length) for b in layout.buckets] == [(2, 10), (1, 20), (1, 40)]
    assert all(bucket.mask is None for bucket in layout.buckets)
    assert len(layout.pack(torch.zeros(4, 40, 1))) == 80
