"""One pre-norm transformer layer over packed sequences.

    x (M, d) -> x + attention(norm(x)) -> x + feed-forward(norm(x))

Equal to ``nn.TransformerEncoderLayer(norm_first=True)`` with ReLU, in parameters, initialisation and result; written
out so that sequences of unequal length, masks and precision are ours to arrange.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aar_dist.models.dropout import Dropout, ReluDropout, dropout
from aar_dist.models.packing import Layout, join

HEAD_DIM = 64


class SelfAttention(nn.Module):
    """Multi-head attention of each sequence to itself."""

    def __init__(self, d_embedding: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.qkv = nn.Linear(d_embedding, 3 * d_embedding)
        self.out = nn.Linear(d_embedding, d_embedding)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(M, d) -> (M, d)."""
        parts = zip(layout.split(self.qkv(x)), layout.buckets, strict=True)
        attended: Tensor = self.out(join([self._attend(qkv, bucket.mask) for qkv, bucket in parts]))
        return attended

    def _attend(self, qkv: Tensor, mask: Tensor | None) -> Tensor:
        """(n, L, 3d) -> (n, L, d)."""
        q, k, v = qkv.view(*qkv.shape[:2], 3, -1, HEAD_DIM).permute(2, 0, 3, 1, 4)
        p = self.dropout if self.training else 0.0
        # On a CPU torch's fused kernel has no dropout, and in bf16 its backward is four times slower than this one.
        written_out = q.device.type == "cpu" and (p > 0 or q.dtype != torch.float32)
        attend = attention if written_out else F.scaled_dot_product_attention
        return attend(q, k, v, attn_mask=mask, dropout_p=p).transpose(1, 2).flatten(2)


def attention(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None, dropout_p: float) -> Tensor:
    """``F.scaled_dot_product_attention`` in single steps, for (n, heads, L, HEAD_DIM)."""
    scores = (q * HEAD_DIM**-0.5) @ k.transpose(-2, -1)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return dropout(scores.softmax(-1), dropout_p) @ v


class EncoderLayer(nn.Module):
    """Attention, then a feed-forward network four times as wide."""

    def __init__(self, d_embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(d_embedding)
        self.attention = SelfAttention(d_embedding, dropout)
        self.norm_feedforward = nn.LayerNorm(d_embedding)
        widen, narrow = nn.Linear(d_embedding, 4 * d_embedding), nn.Linear(4 * d_embedding, d_embedding)
        # The names under which published weights have them.
        self.feedforward = nn.Sequential(OrderedDict({"0": widen, "1": ReluDropout(dropout), "3": narrow}))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(M, d) -> (M, d)."""
        x = x + self.dropout(self.attention(self.norm_attention(x), layout))
        y: Tensor = x + self.dropout(self.feedforward(self.norm_feedforward(x)))
        return y
