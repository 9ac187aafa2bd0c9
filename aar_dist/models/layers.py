"""One pre-norm transformer layer over packed sequences.

    x (M, d) -> x + attention(norm(x)) -> x + feed-forward(norm(x))

Equal to ``nn.TransformerEncoderLayer(norm_first=True)`` with ReLU, in parameters, initialisation and result; written
out so that sequences of unequal length, masks and precision are ours to arrange.
"""

from torch import Tensor, nn
from torch.nn import functional as F

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
        q, k, v = qkv.view(*qkv.shape[:2], 3, -1, HEAD_DIM).permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout).transpose(1, 2).flatten(2)


class EncoderLayer(nn.Module):
    """Attention, then a feed-forward network four times as wide."""

    def __init__(self, d_embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(d_embedding)
        self.attention = SelfAttention(d_embedding, dropout)
        self.norm_feedforward = nn.LayerNorm(d_embedding)
        self.feedforward = nn.Sequential(
            nn.Linear(d_embedding, 4 * d_embedding),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4 * d_embedding, d_embedding),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(M, d) -> (M, d)."""
        x = x + self.dropout(self.attention(self.norm_attention(x), layout))
        y: Tensor = x + self.dropout(self.feedforward(self.norm_feedforward(x)))
        return y
