"""Packing sequences of unequal length and getting them back."""

from dataclasses import replace

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
    model._layout = lambda present, counts: padded(present)
    torch.testing.assert_close(bucket, model.encode_patches(values, present[None]), atol=1e-5, rtol=0)


@given(presence(), st.data())
@settings(max_examples=40, deadline=None)
def test_lengths_that_the_host_knows_give_what_padding_gives(present, data):
    n, p = present.shape
    last = (present * torch.arange(1, p + 1)).amax(1).tolist()
    counts = [data.draw(st.integers(length, p + 2)) for length in last]  # a bound, and never read from the device
    layout = bucketed(present, counts)
    x = torch.arange(1, n * p + 1, dtype=torch.float32).view(n, p, 1)
    assert torch.equal(layout.unpack(layout.pack(x))[present], x[present])
    model = AAREncoder(d_embedding=64, n_layers=1, patch_size=4, max_window_length=164).eval()
    values = torch.randn(n, 1, p, 4)
    model._layout = lambda present, counts: bucketed(present, counts)
    tokens = model.encode_patches(values, present[:, None], tuple(counts))
    model._layout = lambda present, counts: padded(present)
    torch.testing.assert_close(tokens, model.encode_patches(values, present[:, None]), atol=1e-5, rtol=0)


def test_lengths_of_segments_hold_for_each_axis(segments):
    batch = replace(segments(250, 1000, 500), n_samples=(250, 1000, 500))
    patches = AAREncoder().patches(batch)
    assert patches.counts == (10, 40, 20)
    layout = bucketed(patches.present.flatten(0, 1).to("meta"), patches.counts)  # where nothing could be read
    assert [(b.count, b.length) for b in layout.buckets] == [(3, 10), (3, 20), (3, 40)]
    assert AAREncoder(faithful=True).patches(batch).counts == (40, 40, 40)
    assert AAREncoder().patches(replace(batch, n_samples=None)).counts is None
    seconds = AAREncoder(patch_seconds=1.0).patches(replace(batch, duration_s=(2.5, 10.0, 5.0)))
    assert seconds.counts == (3, 10, 5)


def test_short_sequences_are_not_computed_at_full_length():
    present = torch.arange(40) < torch.tensor([10, 40, 20, 10])[:, None]
    layout = bucketed(present)
    assert [(b.count, b.length) for b in layout.buckets] == [(2, 10), (1, 20), (1, 40)]
    assert all(bucket.mask is None for bucket in layout.buckets)
    assert len(layout.pack(torch.zeros(4, 40, 1))) == 80
